"""What quantities of one message say about each other, as a kind's file writes it: ``pm25 <= pm10 * 1.1 + 5``.

Numbers, names of quantities, ``+ - * /``, comparisons, ``and``, ``or``, ``not`` and brackets mean what they mean in
Python; there is nothing else. An expression is evaluated over arrays, so one call judges any number of messages.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache, reduce
from typing import Annotated, Any

from pydantic import AfterValidator

_Columns = Mapping[str, Any]
_Evaluate = Callable[[_Columns], Any]

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_LONGEST = 500  # characters; more is no rule that anyone can read
_LARGEST = 1e300


class Expression:
    """A condition on the quantities of a message.

    Args:
        text: As above.

    Attributes:
        text: The same.
        names: The quantities that it names, in the order of the text.

    Raises:
        ValueError: If it is not such a condition; the message says which part is not.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: tuple[str, ...] = ()
        if len(text) > _LONGEST:
            msg = f"longer than {_LONGEST} characters"
            raise ValueError(msg)
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, RecursionError, MemoryError) as error:
            msg = f"cannot be read: {text!r}"
            raise ValueError(msg) from error
        if not isinstance(tree, ast.Compare | ast.BoolOp) and not _negates(tree):
            msg = f"compares nothing: {text!r}"
            raise ValueError(msg)
        self.holds: _Evaluate = self._condition(tree)
        """bool[n] of columns of n values by quantity; of single values of NumPy, one."""

    def _condition(self, node: ast.expr) -> _Evaluate:
        match node:
            case ast.Compare(left, operators, rest):
                sides = [self._number(side) for side in (left, *rest)]
                compare = [_COMPARISONS.get(type(sign)) for sign in operators]
                if None not in compare:
                    pairs = [(c, a, b) for c, a, b in zip(compare, sides, sides[1:], strict=False) if c]
                    return lambda columns: reduce(operator.and_, (c(a(columns), b(columns)) for c, a, b in pairs))
            case ast.BoolOp(sign, values):
                parts = [self._condition(value) for value in values]
                join = operator.and_ if isinstance(sign, ast.And) else operator.or_
                return lambda columns: reduce(join, (part(columns) for part in parts))
            case ast.UnaryOp(ast.Not(), value):
                part = self._condition(value)
                return lambda columns: part(columns) ^ True  # for single values, too
        raise self._odd(node)

    def _number(self, node: ast.expr) -> _Evaluate:
        match node:
            case ast.Constant(int() | float() as value) if not isinstance(value, bool) and abs(value) < _LARGEST:
                number = float(value)
                return lambda _columns: number
            case ast.Name(name):
                if name not in self.names:
                    self.names += (name,)
                return lambda columns: columns[name]
            case ast.UnaryOp(ast.USub(), value):
                inner = self._number(value)
                return lambda columns: -inner(columns)
            case ast.BinOp(left, sign, right) if type(sign) in _ARITHMETIC:
                apply, a, b = _ARITHMETIC[type(sign)], self._number(left), self._number(right)
                return lambda columns: apply(a(columns), b(columns))
        raise self._odd(node)

    def _odd(self, node: ast.expr) -> ValueError:
        return ValueError(f"{ast.unparse(node)!r} is neither arithmetic nor a comparison of quantities")


@lru_cache(1024)
def read(text: str) -> Expression:
    """The expression of a text; read once, since every layout of messages asks for it.

    Raises:
        ValueError: As ``Expression``.
    """
    return Expression(text)


def _negates(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _readable(text: str) -> str:
    read(text)
    return text


Text = Annotated[str, AfterValidator(_readable)]
"""Of a file: one that can be read."""
