"""Conditions such as `ulysses_degree > 1 and batch_size in [1, 2]`: parsed, never executed as Python."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.sweep.options import full_name

# Names that a filter may use beside options: the run's processes, and which of the repeats it is (from 1).
PROCESSES = "processes"
REPEAT = "repeat"

_LITERALS = {"true": True, "false": False, "null": None, "none": None}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}
_COMBINE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class Condition:
    """A condition over a run's options; an option that the run does not set is null."""

    text: str
    tree: ast.expr
    names: frozenset[str]

    @classmethod
    def parse(cls, written: Any) -> Condition:
        """From a text, or a mapping of option to value or list of values, all of which must hold.

        Raises:
            UserError: the condition is not understood, or names an unknown option.
        """
        text = _text_of(written)
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _not_understood(text) from None
        names: set[str] = set()
        _check(tree, text, names)
        return cls(text, tree, frozenset(names))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """True where it holds for these options, by full name; comparing null or unlike types is false."""
        return bool(_value(self.tree, values))


def _text_of(written: Any) -> str:
    if not isinstance(written, Mapping):
        return str(written)
    parts = [
        f"{full_name(name) if name not in (PROCESSES, REPEAT) else name} "
        f"{'in' if isinstance(value, list) else '=='} {value!r}"
        for name, value in written.items()
    ]
    return " and ".join(parts)


def _check(node: ast.expr, text: str, names: set[str]) -> None:
    """Accept only nodes that `_value` evaluates, and collect the options' full names."""
    match node:
        case ast.Constant(value=str() | int() | float() | None):
            return
        case ast.Name() | ast.Attribute():
            written = ast.unparse(node)
            if written in (PROCESSES, REPEAT):
                names.add(written)
            elif written not in _LITERALS:
                names.add(full_name(written))
            return
        case ast.BoolOp() | ast.List() | ast.Tuple():
            parts = node.values if isinstance(node, ast.BoolOp) else node.elts
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            parts = [node.operand]
        case ast.BinOp() if type(node.op) in _COMBINE:
            parts = [node.left, node.right]
        case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
            parts = [node.left, *node.comparators]
        case _:
            raise _not_understood(text)
    for part in parts:
        _check(part, text, names)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() | ast.Attribute():
            written = ast.unparse(node)
            if written in _LITERALS:
                return _LITERALS[written]
            return values.get(written if written in (PROCESSES, REPEAT) else full_name(written))
        case ast.List() | ast.Tuple():
            return [_value(part, values) for part in node.elts]
        case ast.UnaryOp():
            inner = _value(node.operand, values)
            return not inner if isinstance(node.op, ast.Not) else -inner if _is_number(inner) else None
        case ast.BoolOp():
            parts = (bool(_value(part, values)) for part in node.values)
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        case ast.BinOp():
            left, right = _value(node.left, values), _value(node.right, values)
            return _combined(type(node.op), left, right)
        case ast.Compare():
            return _compare(node, values)
    raise AssertionError(f"parse accepted {ast.dump(node)}")


def _combined(kind: type, left: Any, right: Any) -> Any:
    """A sum or product of numbers; null of anything else, and of a division by zero."""
    if not _is_number(left) or not _is_number(right):
        return None
    try:
        return _COMBINE[kind](left, right)
    except (ZeroDivisionError, OverflowError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compare(node: ast.Compare, values: Mapping[str, Any]) -> bool:
    sides = [_value(side, values) for side in (node.left, *node.comparators)]
    try:
        return all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, sides, sides[1:], strict=False))
    except TypeError:
        return False


def _not_understood(text: str) -> UserError:
    return UserError(
        f"the condition {text!r} is not understood; write option names, numbers, 'texts', [lists], "
        "==, !=, <, <=, >, >=, in, not in, and, or, not"
    )
