"""The expressions of ``$filter`` and ``$orderby``: comparisons, ``and``, ``or``, ``not``, arithmetic, some functions.

An expression is read once into a tree and then asked for its values on an entity. A path through a collection has many
values; a condition on it holds when it holds for any of them.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

Value = str | float | bool | datetime | None
_TOKEN = re.compile(
    r"\s*(?:(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"|(?P<text>'(?:[^']|'')*')|(?P<name>[@$]?[^\W\d][\w.]*(?:/@?[^\W\d][\w.]*)*)|(?P<sign>[(),-]))"
)
_DEEPEST, _MOST_PARTS = 30, 150
"""Bounds of an expression, so that none is deeper than the interpreter's stack."""
_MOST_ROWS = 10_000
"""Most combinations of the values of an operator's arguments."""


class ExpressionError(Exception):
    """An expression cannot be read, or has no value; the message says where and why."""


class Subject(Protocol):
    """What an expression is asked about."""

    def values(self, path: tuple[str, ...]) -> list[Any]:
        """The values at a path.

        Raises:
            KeyError: If the entity has no such path.
        """


class Node(Protocol):
    """A part of an expression."""

    def of(self, subject: Subject) -> list[Value]:
        """Its values on a subject."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Value

    def of(self, _: Subject) -> list[Value]:
        """The constant."""
        return [self.value]


@dataclass(frozen=True, slots=True)
class Path:
    """A property, of the entity itself or of one that it leads to."""

    parts: tuple[str, ...]
    at: int

    def of(self, subject: Subject) -> list[Value]:
        """Its values; times are times."""
        try:
            found = subject.values(self.parts)
        except KeyError:
            _fail(self.at, f"there is no property '{'/'.join(self.parts)}'")
        return [_native(value) for value in found]


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or a function with its arguments."""

    name: str
    arguments: tuple[Node, ...]
    at: int

    def of(self, subject: Subject) -> list[Value]:
        """Its value for each combination of its arguments' values, but of conditions whether any holds."""
        if self.name in {"and", "or"}:
            left = holds(self.arguments[0], subject)
            both = self.name == "and"
            return [left if left is not both else holds(self.arguments[1], subject)]
        if self.name == "not":
            return [not holds(self.arguments[0], subject)]
        rows: list[tuple[Value, ...]] = [()]
        for argument in self.arguments:
            values = argument.of(subject)
            if len(rows) * len(values) > _MOST_ROWS:
                _fail(self.at, f"'{self.name}' would have more than {_MOST_ROWS} combinations of values")
            rows = [(*row, value) for row in rows for value in values]
        if self.name in _COMPARISONS:
            return [any(_compare(self.name, row, self.at) for row in rows)]
        return [self._call(row) for row in rows]

    def _call(self, row: tuple[Value, ...]) -> Value:
        if None in row:
            return None
        try:
            found: Value = _FUNCTIONS[self.name][1](*row)
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            _fail(self.at, f"'{self.name}' cannot be applied to {', '.join(_shown(value) for value in row)}")
        return found


def holds(node: Node, subject: Subject) -> bool:
    """Whether a condition holds on a subject.

    Raises:
        ExpressionError: If it is no condition, or has no value there.
    """
    found = node.of(subject)
    if any(not isinstance(value, bool) and value is not None for value in found):
        msg = f"{_shown(found[0])} is no condition"
        raise ExpressionError(msg)
    return any(found)


def read(text: str) -> Node:
    """Reads an expression.

    Raises:
        ExpressionError: If it cannot be read; says at which character.
    """
    return _Parser(text).whole()


def bounds(node: Node | None, names: frozenset[str]) -> tuple[int | None, int | None, bool]:
    """Within which times an expression can hold at all: what ``and`` joins at its top says so.

    Args:
        node: The expression.
        names: Properties that hold the time.

    Returns:
        First millisecond, first that no longer belongs, and whether that is all that the expression says.
    """
    start: int | None = None
    end: int | None = None
    whole = True
    for part in conjuncts(node):
        found = _time_bound(part, names)
        if found is None:
            whole = False
            continue
        name, moment = found
        micros = round(moment.timestamp() * 1_000_000)
        below, above = micros // 1000, -(-micros // 1000)
        if name in {"gt", "ge", "eq"}:
            first = below + 1 if name == "gt" else above
            start = first if start is None else max(start, first)
        if name in {"lt", "le", "eq"}:
            last = above if name == "lt" else below + 1
            end = last if end is None else min(end, last)
    return start, end, whole


def _time_bound(part: Node, names: frozenset[str]) -> tuple[str, datetime] | None:
    if not isinstance(part, Apply) or part.name not in _MIRRORED or part.name == "ne":
        return None
    left, right = part.arguments
    name = part.name
    if isinstance(left, Literal):
        left, right, name = right, left, _MIRRORED[name]
    if not isinstance(left, Path) or "/".join(left.parts) not in names or not isinstance(right, Literal):
        return None
    return (name, right.value) if isinstance(right.value, datetime) else None


def named(node: Node | None, names: frozenset[str]) -> tuple[str | None, bool]:
    """The text that a property must equal, by what ``and`` joins at the top, and whether that is all it says."""
    text: str | None = None
    whole = True
    for part in conjuncts(node):
        match part:
            case Apply("eq", (Path(parts), Literal(str() as value))) if "/".join(parts) in names and text is None:
                text = value
            case _:
                whole = False
    return text, whole


def conjuncts(node: Node | None) -> Iterator[Node]:
    """The conditions that must all hold."""
    if isinstance(node, Apply) and node.name == "and":
        for argument in node.arguments:
            yield from conjuncts(argument)
    elif node is not None:
        yield node


class _Parser:
    """Recursive descent, by rising precedence: or, and, not, comparison, add, mul, unary."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._parts = 0
        self._kind = ""
        self._token = ""
        self._start = 0
        self._next()

    def whole(self) -> Node:
        node = self._or()
        if self._kind:
            self._expected("an operator or the end")
        return node

    def _next(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            _fail(self._at, f"longer than {_MOST_PARTS} words and signs")
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            rest = self._text[self._at :]
            if rest.strip():
                _fail(self._at + len(rest) - len(rest.lstrip()), f"'{rest.strip()[:10]}' is not understood")
            self._kind, self._token, self._start = "", "", len(self._text)
            return
        self._kind = str(found.lastgroup)
        self._token = found.group(self._kind)
        self._start, self._at = found.start(self._kind), found.end()

    def _word(self, *words: str) -> str | None:
        if self._kind == "name" and self._token in words:
            token = self._token
            self._next()
            return token
        return None

    def _sign(self, sign: str) -> bool:
        if self._kind == "sign" and self._token == sign:
            self._next()
            return True
        return False

    def _expected(self, what: str) -> NoReturn:
        _fail(self._start, f"expected {what}, found {f'{self._token!r}' if self._kind else 'the end'}")

    def _or(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            _fail(self._start, f"nested more than {_DEEPEST} deep")
        node = self._binary(("or",), lambda: self._binary(("and",), self._not))
        self._depth -= 1
        return node

    def _binary(self, words: tuple[str, ...], part: Callable[[], Node]) -> Node:
        node = part()
        while True:
            at = self._start
            word = self._word(*words)
            if word is None:
                return node
            node = Apply(word, (node, part()), at)

    def _not(self) -> Node:
        at = self._start
        negations = 0
        while self._word("not"):
            negations += 1
        node = self._comparison()
        return Apply("not", (node,), at) if negations % 2 else node

    def _comparison(self) -> Node:
        node = self._sum()
        at = self._start
        word = self._word(*_COMPARISONS)
        return node if word is None else Apply(word, (node, self._sum()), at)

    def _sum(self) -> Node:
        return self._binary(("add", "sub"), lambda: self._binary(("mul", "div", "mod"), self._one))

    def _one(self) -> Node:  # noqa: PLR0911 - a return for each form of a value
        kind, token, at = self._kind, self._token, self._start
        if self._sign("-"):
            return Apply("neg", (self._one(),), at)
        if self._sign("("):
            node = self._or()
            if not self._sign(")"):
                self._expected("')'")
            return node
        if kind in {"", "sign"}:
            self._expected("a value")
        self._next()
        match kind:
            case "number":
                return Literal(float(token))
            case "text":
                return Literal(token[1:-1].replace("''", "'"))
            case "time":
                return Literal(_time(token, at))
        if token in _WORDS:
            return Literal(_WORDS[token])
        if self._sign("("):
            return self._function(token, at)
        return Path(tuple(token.split("/")), at)

    def _function(self, name: str, at: int) -> Node:
        arguments: list[Node] = []
        while not self._sign(")"):
            if arguments and not self._sign(","):
                self._expected("',' or ')'")
            arguments.append(self._or())
        if name not in _FUNCTIONS or name in _OPERATORS:
            known = ", ".join(sorted(set(_FUNCTIONS) - _OPERATORS))
            _fail(at, f"there is no function '{name}'; there are {known}")
        if len(arguments) not in _FUNCTIONS[name][0]:
            numbers = " or ".join(str(number) for number in _FUNCTIONS[name][0])
            _fail(at, f"'{name}' takes {numbers} arguments, not {len(arguments)}")
        return Apply(name, tuple(arguments), at)


def _fail(at: int, why: str) -> NoReturn:
    msg = f"at character {at + 1}: {why}"
    raise ExpressionError(msg)


def _time(text: str, at: int) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        _fail(at, f"'{text}' is no time: {error}")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _native(value: object) -> Value:
    if isinstance(value, bool) or value is None or isinstance(value, datetime):
        return value
    if isinstance(value, int | float):
        return float(value)
    return str(value)


def _shown(value: Value) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _compare(name: str, row: tuple[Value, ...], at: int) -> bool:
    left, right = row
    if isinstance(left, datetime) and isinstance(right, str):
        right = _time(right, at)
    elif isinstance(right, datetime) and isinstance(left, str):
        left = _time(left, at)
    if name in {"eq", "ne"}:
        return (left == right) is (name == "eq")
    if left is None or right is None:
        return False
    if type(left) is not type(right):
        _fail(at, f"{_shown(left)} and {_shown(right)} cannot be compared")
    return bool(_COMPARISONS[name](left, right))


def _substring(text: str, start: float, length: float | None = None) -> str:
    first = int(start)
    return text[first:] if length is None else text[first : first + int(length)]


def _modulo(left: float, right: float) -> float:
    return math.fmod(left, right)


def _joined(left: str, right: str) -> str:
    return left + right if isinstance(left, str) and isinstance(right, str) else _no()


def _no() -> NoReturn:
    raise TypeError


def _round(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_MIRRORED = {"eq": "eq", "ne": "ne", "gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}
_OPERATORS = {"add", "sub", "mul", "div", "mod", "neg"}
_FUNCTIONS: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "add": ((2,), operator.add),
    "sub": ((2,), operator.sub),
    "mul": ((2,), operator.mul),
    "div": ((2,), operator.truediv),
    "mod": ((2,), _modulo),
    "neg": ((1,), operator.neg),
    "substringof": ((2,), lambda part, text: part in text),
    "contains": ((2,), lambda text, part: part in text),
    "startswith": ((2,), lambda text, part: text.startswith(part)),
    "endswith": ((2,), lambda text, part: text.endswith(part)),
    "length": ((1,), lambda text: float(len(text))),
    "indexof": ((2,), lambda text, part: float(text.find(part))),
    "substring": ((2, 3), _substring),
    "tolower": ((1,), lambda text: text.lower()),
    "toupper": ((1,), lambda text: text.upper()),
    "trim": ((1,), lambda text: text.strip()),
    "concat": ((2,), _joined),
    "year": ((1,), lambda time: float(time.year)),
    "month": ((1,), lambda time: float(time.month)),
    "day": ((1,), lambda time: float(time.day)),
    "hour": ((1,), lambda time: float(time.hour)),
    "minute": ((1,), lambda time: float(time.minute)),
    "second": ((1,), lambda time: float(time.second)),
    "now": ((0,), lambda: datetime.now(UTC)),
    "round": ((1,), _round),
    "floor": ((1,), lambda value: float(math.floor(value))),
    "ceiling": ((1,), lambda value: float(math.ceil(value))),
}
