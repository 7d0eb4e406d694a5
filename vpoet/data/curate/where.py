"""``motion > 0.4 and text < 0.02``: what clips have to be, in a tiny language of comparisons, never run as a program.

    EXPRESSION   comparisons joined by and, or, not, with parentheses
    COMPARISON   VALUE < <= > >= == != VALUE, chained as in 1 < motion < 5; VALUE in (VALUE, ...), not in
    VALUE        a name, a number, a text in quotes, or these joined by + - * /

A name is a measure, or a field of a clip's json; ``truth.who`` is a field of a field. Python's own parser reads it, of
whose tree nothing else is allowed.
"""

import ast
import difflib
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vpoet.errors import DataError

Facts = Mapping[str, Any]
"""What is known of a clip, by name."""
LONGEST, DEEPEST = 4000, 50
"""Characters of an expression, and parts of it in each other."""
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_JOINED: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


class _Unknown(Exception):
    """A clip of which a name is not known."""


@dataclass(frozen=True)
class Condition:
    """One of the conditions that an expression joins by ``and``."""

    text: str
    names: tuple[str, ...]
    """In the order in which they stand in it; the first is what clips are ranked by for the report."""
    _node: ast.expr

    def holds(self, facts: Facts) -> bool:
        """Whether a clip is so; it is not if it has no such measure, or one of another kind."""
        try:
            return bool(_truth(self._node, facts))
        except (_Unknown, TypeError, ZeroDivisionError):
            return False


def conditions(text: str) -> list[Condition]:
    """Those of an expression, in order. DataError, showing the place: it is none of this language."""
    if len(text) > LONGEST:
        raise DataError(f"--where of {len(text)} characters; {LONGEST} at most")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise DataError(f"--where {text!r}: cannot be read{where}; for instance motion > 0.4 and text < 0.02") from None
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    for part in parts:
        _check(part, text, truth=True)
    return [Condition(ast.unparse(part), tuple(dict.fromkeys(_names(part))), part) for part in parts]


def check_names(asked: Iterable[Condition], known: Collection[str]) -> None:
    """DataError: a name that not one clip knows."""
    for name in (name.partition(".")[0] for condition in asked for name in condition.names):
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            remedy = f"did you mean {near[0]}?" if near else f"there is {', '.join(sorted(known))[:300]};"
            raise DataError(
                f"--where: no clip has {name!r}: {remedy} what clips look like `vpoet measure` tells, and text, match, "
                "aesthetic and nsfw only when it is asked to"
            )


def look_up(name: str, facts: Facts) -> Any:
    """What is known of a clip by a name, or by names of fields in fields; None if nothing is."""
    found: Any = facts
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _check(node: ast.AST, text: str, truth: bool, depth: int = 0) -> None:
    """DataError unless a part is a ``truth``, or else a value, of the language."""

    def inside(parts: Iterable[ast.AST], truth: bool) -> bool:
        for part in parts:
            _check(part, text, truth, depth + 1)
        return True

    right = depth <= DEEPEST
    if not right:
        pass
    elif truth and isinstance(node, ast.BoolOp):
        right = inside(node.values, True)
    elif truth and isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        right = inside([node.operand], True)
    elif truth and isinstance(node, ast.Compare):
        known = all(type(op) in _COMPARED for op in node.ops)
        right = known and inside([node.left], False)
        for op, value in zip(node.ops, node.comparators, strict=True):
            listed = isinstance(value, ast.Tuple | ast.List)
            right = right and listed == isinstance(op, ast.In | ast.NotIn)
            right = right and inside(value.elts if isinstance(value, ast.Tuple | ast.List) else [value], False)
    elif not truth and isinstance(node, ast.BinOp):
        right = type(node.op) in _JOINED and inside([node.left, node.right], False)
    elif not truth and isinstance(node, ast.UnaryOp):
        right = isinstance(node.op, ast.USub) and inside([node.operand], False)
    else:
        right = not truth and (_name(node) is not None or _is_constant(node))
    if not right:
        try:
            shown = ast.unparse(node)[:80]
        except (ValueError, RecursionError):
            shown = "a part of it"
        wanted = "a comparison" if truth else "a name, a number or a text in quotes"
        raise DataError(f"--where {text[:200]!r}: {shown!r} is not {wanted}; for instance motion > 0.4 and text < 0.02")


def _truth(node: ast.expr, facts: Facts) -> bool:
    if isinstance(node, ast.BoolOp):
        decide = all if isinstance(node.op, ast.And) else any
        return decide(_truth(part, facts) for part in node.values)
    if isinstance(node, ast.UnaryOp):
        return not _truth(node.operand, facts)
    assert isinstance(node, ast.Compare)
    left = _value(node.left, facts)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, facts)
        if not _COMPARED[type(op)](left, right):
            return False
        left = right
    return True


def _value(node: ast.expr, facts: Facts) -> Any:
    if (name := _name(node)) is not None:
        found = look_up(name, facts)
        if found is None:
            raise _Unknown(name)
        return found
    if isinstance(node, ast.Tuple | ast.List):
        return [_value(part, facts) for part in node.elts]
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand, facts)
    if isinstance(node, ast.BinOp):
        values = _value(node.left, facts), _value(node.right, facts)
        if not all(isinstance(value, int | float) for value in values):
            raise TypeError("only numbers are added")
        return _JOINED[type(node.op)](*values)
    assert isinstance(node, ast.Constant)
    return node.value


def _name(node: ast.AST) -> str | None:
    """The name that a part is, dots and all."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (above := _name(node.value)) is not None:
        return f"{above}.{node.attr}"
    return None


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float | str)


def _names(node: ast.AST) -> Iterable[str]:
    if (name := _name(node)) is not None:
        yield name
        return
    for part in ast.iter_child_nodes(node):
        yield from _names(part)
