"""Reads a TOML file into the model of what it describes."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

_Model = TypeVar("_Model", bound=BaseModel)


def read(path: Path, model: type[_Model], problem: type[Exception], **more: object) -> _Model:
    """What a file describes.

    Args:
        path: The file.
        model: What it has to be.
        problem: The exception to raise.
        more: What does not stand in the file.

    Raises:
        Exception: ``problem``, if the file cannot be read, is not TOML, or a key is wrong; names file and key.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{path}: {error}"
        raise problem(msg) from error
    for key in more.keys() & data.keys():
        msg = f"{path}: {key}: not to be given here"
        raise problem(msg)
    try:
        return model.model_validate({**data, **more})
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise problem(msg) from error
