"""Bins in the order and the words of people. Pure.

Numeric bins are named `(low,high]` by `perennial_features.reference`, categories by themselves; both have `missing`, categories `other`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from perennial_cli.insight.story import Bin
from perennial_spec import names

_NUMERIC = re.compile(r"^\((-inf|[-+.\de]+),(inf|[-+.\de]+)[\])]$")
_LAST = {names.BIN_OTHER: 1, names.BIN_MISSING: 2}


def in_order(bins: Iterable[Bin]) -> tuple[Bin, ...]:
    """Numbers as they rise, categories by their share of the reference; `other` and `missing` at the end."""
    return tuple(sorted(bins, key=_place))


def largest_changes(bins: tuple[Bin, ...], most: int) -> tuple[Bin, ...]:
    """Of many bins those whose share has changed most, in the order in which they were."""
    if len(bins) <= most:
        return bins
    kept = sorted(bins, key=lambda each: -abs(each.live - each.reference))[:most]
    return tuple(each for each in bins if each in kept)


def spoken(name: str) -> str:
    """`(12.5,14]` as `12.5 to 14`, `(-inf,12.5]` as `to 12.5`, `(14,inf)` as `above 14`; a category as it is."""
    match = _NUMERIC.match(name)
    if not match:
        return name
    low, high = (_short(end) for end in match.groups())
    if low == high:  # too close to be told apart in a few digits
        low, high = match.groups()
    if low == "-inf":
        return "any number" if high == "inf" else f"to {high}"
    return f"above {low}" if high == "inf" else f"{low} to {high}"


def _short(number: str) -> str:
    """Four digits, and never fewer than stand before the point."""
    value = float(number)
    return number.removeprefix("+") if math.isinf(value) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _place(each: Bin) -> tuple[int, float, str]:
    match = _NUMERIC.match(each.name)
    return (_LAST.get(each.name, 0), float(match[1]) if match else -each.reference, each.name)
