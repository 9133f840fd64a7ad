"""The query options of SensorThings: which entities, in which order, how many of them, with what beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.city.sta import expressions
from gateway.city.sta.expressions import ExpressionError, Node

TOP, MOST = 100, 10_000
_DEEPEST = 6
_LISTS = frozenset({"$filter", "$expand", "$select", "$orderby"})
"""Without anything in them they ask for nothing."""
_OPTIONS = ("$filter", "$expand", "$select", "$orderby", "$top", "$skip", "$count", "$skiptoken")
_MOST_SKIPPED = 1_000_000_000


class OptionError(Exception):
    """A query option cannot be used; the message names it and says where."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a collection or an entity.

    Attributes:
        where: The condition.
        order: Keys and whether each falls.
        expand: What to put beside, by navigation property.
        select: Properties to show; all when None.
        top: Most entities of an answer.
        skip: Entities to leave out first.
        count: Whether to count all.
        token: Where the page before ended.
        query: The options as they were written.
    """

    where: Node | None = None
    order: tuple[tuple[Node, bool], ...] = ()
    expand: Mapping[str, "Options"] = field(default_factory=dict)
    select: tuple[str, ...] | None = None
    top: int = TOP
    skip: int = 0
    count: bool = False
    token: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)


def read(query: Mapping[str, str]) -> Options:
    """Reads the options of a request.

    Raises:
        OptionError: If one is unknown or cannot be read.
    """
    return _read(query, "", 0)


def _read(query: Mapping[str, str], inside: str, depth: int) -> Options:  # noqa: C901 - a case for each option
    if depth > _DEEPEST:
        msg = f"{inside}$expand: nested more than {_DEEPEST} deep"
        raise OptionError(msg)
    options = Options(query=dict(query))
    given = {name: value for name, value in query.items() if value.strip() or name not in _LISTS}
    for name, value in given.items():
        where = f"{inside}{name}"
        match name:
            case "$filter":
                options = replace(options, where=_expression(where, value))
            case "$orderby":
                options = replace(options, order=tuple(_key(where, part) for part in _split(value, ",")))
            case "$expand":
                options = replace(options, expand=_expand(where, value, depth))
            case "$select":
                names = tuple(part.strip() for part in value.split(","))
                options = replace(options, select=names)
            case "$top":
                options = replace(options, top=min(MOST, _number(where, value)))
            case "$skip":
                options = replace(options, skip=_number(where, value))
            case "$count":
                if value not in {"true", "false"}:
                    msg = f"{where}: '{value}' is neither true nor false"
                    raise OptionError(msg)
                options = replace(options, count=value == "true")
            case "$skiptoken":
                options = replace(options, token=value)
            case _:
                msg = f"{where}: there is no such option; there are {', '.join(_OPTIONS[:-1])}"
                raise OptionError(msg)
    return options


def _expression(where: str, text: str) -> Node:
    try:
        return expressions.read(text)
    except ExpressionError as error:
        msg = f"{where}: {error}"
        raise OptionError(msg) from error


def _key(where: str, text: str) -> tuple[Node, bool]:
    words = text.rsplit(maxsplit=1)
    direction = words[-1].lower() if len(words) > 1 else ""
    falls = direction == "desc"
    return _expression(where, words[0] if direction in {"asc", "desc"} else text), falls


def _expand(where: str, text: str, depth: int) -> dict[str, Options]:
    found: dict[str, Options] = {}
    for item in _split(text, ","):
        path, _, rest = item.strip().partition("(")
        if rest and not rest.endswith(")"):
            msg = f"{where}: '{item.strip()}' lacks its ')'"
            raise OptionError(msg)
        name, _, deeper = path.strip().partition("/")
        if not name:
            msg = f"{where}: a name is missing in '{text}'"
            raise OptionError(msg)
        query: dict[str, str] = {}
        if deeper:  # Datastreams/Observations is Datastreams($expand=Observations)
            query["$expand"] = deeper + item.strip()[len(path) :]
        elif rest:
            query = _options(where, rest[:-1])
        options = _read(query, f"{where}={name}: ", depth + 1)
        known = found.get(name)
        found[name] = options if known is None else replace(known, expand={**known.expand, **options.expand})
    return found


def _options(where: str, text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for part in _split(text, ";"):
        name, sign, value = part.partition("=")
        if not sign:
            msg = f"{where}: '{part}' is no option; an option is $name=value, and ';' parts them"
            raise OptionError(msg)
        query[name.strip()] = value
    return query


def _split(text: str, sign: str) -> list[str]:
    """Splits at a sign outside quotes and parentheses."""
    parts, depth, quoted, start = [], 0, False, 0
    for place, letter in enumerate(text):
        if letter == "'":
            quoted = not quoted
        elif not quoted:
            depth += (letter == "(") - (letter == ")")
            if letter == sign and depth == 0:
                parts.append(text[start:place])
                start = place + 1
    return [*parts, text[start:]]


def _number(where: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text[:12]) > _MOST_SKIPPED:
        msg = f"{where}: '{text}' is no whole number from 0 to {_MOST_SKIPPED}"
        raise OptionError(msg)
    return int(text)
