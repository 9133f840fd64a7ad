"""The API's reference as one page without scripts, made from the OpenAPI description."""

import html
from typing import Any

_STYLE = """
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem } h2 { border-top: 1px solid #8886; padding-top: 1rem; font-size: 1.1rem } code { font-size: .95em }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .2rem .8rem .2rem 0;
vertical-align: top } .method { font-weight: 700; text-transform: uppercase; margin-right: .5rem }
"""


def page(openapi: dict[str, Any]) -> str:
    """Renders an OpenAPI description.

    Args:
        openapi: The description, as served at ``/openapi.json``.

    Returns:
        A complete HTML page.
    """
    info = openapi["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{_text(info['title'])} API</title><style>{_STYLE}</style><h1>{_text(info['title'])} API</h1>",
        f"<p>Version {_text(info['version'])}. For programs: <a href=/openapi.json>openapi.json</a>.</p>",
    ]
    components = openapi["components"]
    schemas, shared = components["schemas"], components["responses"]
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            parts += _operation(path, method, operation, shared)
    parts.append("<h1>Shapes</h1>")
    for name, schema in sorted(schemas.items()):
        rows = [
            (key, _type(value), value.get("description", "")) for key, value in schema.get("properties", {}).items()
        ]
        parts += [f"<h2 id={_text(name)}>{_text(name)}</h2><p>{_text(schema.get('description', ''))}</p>", _table(rows)]
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any], shared: dict[str, Any]) -> list[str]:
    rows = [
        (item["name"], _type(item.get("schema", {})), item.get("description", ""))
        for item in operation.get("parameters", [])
    ]
    answers = ", ".join(
        f"{status} {_type(schema)}".strip()
        for status, said in operation["responses"].items()
        for answer in [shared[said["$ref"].rsplit("/", 1)[-1]] if "$ref" in said else said]
        for content in [*answer.get("content", {}).values()][:1] or [{}]
        for schema in [content.get("schema", {})]
    )
    return [
        f"<h2><span class=method>{_text(method)}</span><code>{_text(path)}</code></h2>",
        f"<p>{_text(operation.get('description', ''))}</p>",
        _table(rows),
        f"<p>Answers: {answers}</p>",
    ]


def _table(rows: list[tuple[str, str, str]]) -> str:
    body = "".join(
        f"<tr><td><code>{_text(name)}</code><td>{kind}<td>{_text(description)}" for name, kind, description in rows
    )
    return f"<table>{body}</table>" if rows else ""


def _type(schema: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        name = _text(str(reference).rsplit("/", 1)[-1])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " | ".join(_type(item) for item in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{_text(str(item))}</code>" for item in schema["enum"])
    if schema.get("type") == "array" and "items" in schema:
        return f"[{_type(schema['items'])}]"
    return _text(str(schema.get("type", "")))


def _text(value: str) -> str:
    return html.escape(value)
