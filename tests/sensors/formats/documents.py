"""A format's document shows the payloads that its tests read, and names its options as the code does."""

import re
from pathlib import Path

from sensors.formats import find

_PAYLOADS = Path(__file__).parent / "payloads"
_DOCUMENTS = Path(__file__).parents[3] / "docs/formats"


def payload(path: str) -> bytes:
    """A payload of the tests, such as ``airrohr/sds011_bme280.json``; a binary one is kept in hexadecimal, ``.hex``."""
    read = (_PAYLOADS / path).read_bytes()
    return bytes.fromhex(read.decode()) if path.endswith(".hex") else read


def source(name: str) -> str:
    """The example of a source in a format's document, in TOML."""
    return "".join(re.findall(r"^```toml\n(.*?)^```", _text(name), re.MULTILINE | re.DOTALL))


def verify(name: str) -> None:
    """Compares a format's document with its payloads and its options."""
    text = _text(name)
    shown = set(re.findall(r"^```\w*\n(.*?)\n?^```", text, re.MULTILINE | re.DOTALL))
    files = sorted(path for path in (_PAYLOADS / name).iterdir() if not path.name.endswith(".gbk"))
    assert files
    missing = [path.name for path in files if path.read_text("utf-8").strip() not in shown]
    assert not missing, f"docs/formats/{name}.md does not show {missing}"
    options = {
        key: re.sub(r"\s+", " ", field.description or "") for key, field in find(name).options.model_fields.items()
    }
    table = text.partition("\n## Options\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", table, re.MULTILINE))
    assert rows == options, f"docs/formats/{name}.md: its table of options is not as the code"


def _text(name: str) -> str:
    return (_DOCUMENTS / f"{name}.md").read_text("utf-8")
