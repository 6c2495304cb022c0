"""What an expression of PromQL uses, and which of its parts may be zero."""

from __future__ import annotations

from collections.abc import Iterator, Set
from datetime import timedelta
from typing import Any

import promql_parser as promql

GUARDS = (">", ">=", "!=")
_KEEPS_ZERO = ("abs", "sqrt", "ceil", "round", "scalar", "vector", "label_replace", "max_over_time", "min_over_time")
_NEVER_ZERO = ("exp", "time", "timestamp", "count_over_time", "present_over_time")
RATES = ("rate", "irate", "increase", "delta", "idelta", "deriv", "resets", "changes")


def parse(text: str) -> Any:
    """The expression as a tree.

    Raises:
        ValueError: it is none.
    """
    return promql.parse(text)


def nodes(tree: Any) -> Iterator[Any]:
    """Every part of an expression."""
    found: list[Any] = []
    promql.walk(tree, pre_visit=found.append)
    yield from found


def metrics(tree: Any) -> set[str]:
    """Names of all series that are read; empty for a selector without a name."""
    return {_selector(node).name or "" for node in nodes(tree) if isinstance(node, _SELECTORS)}


def rate_windows(tree: Any) -> Iterator[tuple[str, timedelta]]:
    """Function and window wherever the growth of a series is asked for."""
    for node in nodes(tree):
        if isinstance(node, promql.Call) and node.func.name in RATES:
            argument = node.args[0]
            if isinstance(argument, promql.MatrixSelector | promql.SubqueryExpr) and argument.range is not None:
                yield node.func.name, argument.range


def divisors(tree: Any) -> list[Any]:
    """What is divided by."""
    return [node.rhs for node in nodes(tree) if isinstance(node, promql.BinaryExpr) and str(node.op) in ("/", "%")]


def guarded(tree: Any) -> frozenset[str]:
    """Parts that a comparison keeps above zero somewhere in the expression, as text."""
    return frozenset(
        node.lhs.prettify().strip() for node in nodes(tree) if isinstance(node, promql.BinaryExpr) and _is_guard(node)
    )


def never_zero(  # noqa: PLR0911 (one return per kind of node)
    tree: Any, positive: Set[str], guards: Set[str] = frozenset()
) -> bool:
    """Whether an expression can never be zero, as far as its form tells; sums are taken to be of what is not negative.

    Args:
        tree: from `parse`.
        positive: names of series that are never zero.
        guards: from `guarded`, of the rule that it is a part of.
    """
    if tree.prettify().strip() in guards:
        return True
    match tree:
        case promql.NumberLiteral():
            return bool(tree.val != 0)
        case promql.VectorSelector() | promql.MatrixSelector():
            return _selector(tree).name in positive
        case promql.AggregateExpr():
            return str(tree.op) in ("count", "group") or never_zero(tree.expr, positive, guards)
        case promql.Call():
            return _call_is_never_zero(tree, positive, guards)
        case promql.BinaryExpr():
            return _binary_is_never_zero(tree, positive, guards)
    return isinstance(tree, promql.ParenExpr | promql.UnaryExpr) and never_zero(tree.expr, positive, guards)


def _call_is_never_zero(call: Any, positive: Set[str], guards: Set[str]) -> bool:
    name = call.func.name
    if name == "clamp_min":
        return never_zero(call.args[1], positive, guards)
    return name in _NEVER_ZERO or (name in _KEEPS_ZERO and never_zero(call.args[0], positive, guards))


def _binary_is_never_zero(node: Any, positive: Set[str], guards: Set[str]) -> bool:
    if _is_guard(node):
        return True
    left, right = (never_zero(side, positive, guards) for side in (node.lhs, node.rhs))
    match str(node.op):
        case "+":
            return left or right
        case "*" | "or":
            return left and right
        case "/" | "^" | "and" | "unless" | ">" | "<" | ">=" | "<=" | "==" | "!=":
            return left
    return False


def _is_guard(node: Any) -> bool:
    """A comparison that lets only what is above zero through."""
    if str(node.op) not in GUARDS or not isinstance(node.rhs, promql.NumberLiteral):
        return False
    if node.modifier is not None and node.modifier.return_bool:
        return False
    limit = node.rhs.val
    return bool({">": limit >= 0, ">=": limit > 0, "!=": limit == 0}[str(node.op)])


_SELECTORS = (promql.VectorSelector, promql.MatrixSelector)


def _selector(node: Any) -> Any:
    return node.vector_selector if isinstance(node, promql.MatrixSelector) else node
