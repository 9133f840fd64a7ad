"""The reference sections of docs/, written from the code: ``python -m tests.house.reference`` brings them up to date.

A section stands between ``<!-- reference: NAME -->`` and ``<!-- end -->``; the rest of a document is written by hand.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.__main__ import app
from gateway.config import CityConfig, GatewayConfig, RulesFile, fields
from sensors import kinds

DOCS = Path(__file__).parents[2] / "docs"
DURATIONS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
SIZES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
"""Units in which a default is shown, largest first."""


def settings(model: type[BaseModel]) -> str:
    """A table a section of the configuration: key, default, meaning."""
    sections: dict[str, list[str]] = {}
    for path, field in fields(model):
        section, _, key = path.rpartition(".")
        sections.setdefault(section, []).append(f"| `{key}` | {_default(field)} | {_cell(field.description or '')} |")
    tables = []
    for section, rows in sections.items():
        title = f"[[{section.removesuffix('[]')}]]" if section.endswith("[]") else f"[{section}]"
        tables.append("\n".join([f"### `{title}`", "", "| key | default | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(tables)


def commands() -> str:
    """The help of every command, as the terminal shows it."""
    parts = []
    for name, command in _commands("", typer.main.get_command(app)):
        rows = []
        for parameter in command.params:
            help_text = getattr(parameter, "help", None) or ""
            names = ", ".join(f"`{option}`" for option in parameter.opts) if parameter.opts else ""
            label = f"`{parameter.name.upper()}`" if parameter.param_type_name == "argument" else names
            rows.append(f"| {label} | {_option_default(parameter)} | {_cell(help_text)} |")
        table = ["| option | default | meaning |", "|---|---|---|", *rows, ""] if rows else []
        example = (command.epilog or "").removeprefix("Example: ")
        text = " ".join((command.help or "").split("\f")[0].split())
        parts.append("\n".join([f"### `citygate {name}`", "", text, "", *table, "```sh", example, "```"]))
    return "\n\n".join(parts)


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's own or click's
    for name, command in getattr(group, "commands", {}).items():
        yield f"{prefix}{name}", command
        yield from _commands(f"{prefix}{name} ", command)


def kind_table() -> str:
    """Every built-in kind with its quantities and their units."""
    rows = []
    for name, kind in kinds.builtin().items():
        own = {key: item for key, item in kind.quantities.items() if key not in kinds.DIAGNOSTICS}
        cells = ", ".join(f"`{key}` {item.unit}".strip() for key, item in own.items())
        rows.append(f"| `{name}` | {kind.title.en} | {cells} |")
    return "\n".join(["| kind | title | quantities |", "|---|---|---|", *rows])


SECTIONS: dict[str, tuple[str, Callable[[], str]]] = {
    "gateway": ("configuration.md", lambda: settings(GatewayConfig)),
    "city": ("configuration.md", lambda: settings(CityConfig)),
    "rules": ("alerts.md", lambda: settings(RulesFile)),
    "commands": ("operations.md", commands),
    "kinds": ("data-model.md", kind_table),
}


def replaced(text: str, name: str, section: str) -> str:
    """The document's text with a section written anew."""
    pattern = rf"(<!-- reference: {name} -->\n).*?(<!-- end -->)"
    new, count = re.subn(pattern, lambda match: f"{match[1]}\n{section}\n\n{match[2]}", text, flags=re.DOTALL)
    assert count == 1, f"no section '{name}'"
    return new


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _option_default(parameter: Any) -> str:  # noqa: ANN401 - typer's own or click's
    if parameter.required:
        return "required"
    default = parameter.default
    return "" if default is None or default is False else f"`{default}`"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required" if field.default_factory is None else "`{}`"
    if field.default is None:
        return ""
    return (
        f"`{_toml(field.default, {getattr(getattr(item, 'func', None), '__name__', '') for item in field.metadata})}`"
    )


def _toml(value: object, parsers: set[str]) -> str:
    match value:
        case float() if "seconds" in parsers:
            return f'"{_duration(value)}"'
        case int() if "_size" in parsers:
            return f'"{_size(value)}"'
        case bool() | int() | float() | tuple():
            return json.dumps(value, ensure_ascii=False)
        case BaseModel():
            return f"{{ {', '.join(f'{key} = {json.dumps(item, ensure_ascii=False)}' for key, item in value)} }}"
        case _:
            return f'"{value}"'


def _duration(seconds: float) -> str:
    for unit, size in DURATIONS.items():
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds * 1000:g}ms"


def _size(count: int) -> str:
    for unit, size in SIZES.items():
        if count % size == 0:
            return f"{count // size}{unit}"
    return f"{count}B"


def main() -> None:
    """Writes every section anew."""
    for name, (document, write) in SECTIONS.items():
        path = DOCS / document
        path.write_text(replaced(path.read_text("utf-8"), name, write()), "utf-8")


if __name__ == "__main__":
    main()
