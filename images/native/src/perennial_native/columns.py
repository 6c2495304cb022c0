"""The fast form of a forest: rows become bytes, and every split a comparison of one byte.

A threshold matters only by its place among its feature's thresholds: `value < cuts[i]` is `rank <= i`, where rank is how many of the
cuts are not above the value. So a row is encoded once, with one binary search per feature, and the trees compare small whole numbers.
A *column* is one such byte:

- of a number: its rank among up to 254 cuts (more cuts make more columns), missing as 0 or 254: there is one column for the splits
  where missing goes left and one for those where it goes right, so that no tree asks whether a value is missing;
- of a category: whether it goes right in one distinct split; the columns of all of a feature's splits are a row of a table.

All is exact: no value is rounded, and nothing depends on which values training saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from perennial_native.flat import BY_CATEGORY, FAST, MISSING_LEFT, Array

CUTS = 254
"""Cuts per column: 255 ranks, and one byte that no rank exceeds."""
LANES = 16
"""A category's columns are a multiple of this: they are copied and turned in pieces of 16 bytes."""
MOST_COLUMNS = 65_535
MOST_TABLE = 2**26
"""Bytes of tables of categories; beyond this, the plain way is the better one."""
DEEPEST = 8
"""Levels up to which trees are padded to perfect ones, whose children need no pointers."""
SMALL = 65_536
"""Padded nodes that no forest is too small for."""
NEVER = 254
"""No byte of a row is above this one: both children are the same."""


class _Places(NamedTuple):
    """By node: which byte of a row it compares, and with what."""

    column: Array
    cut: Array


def fast(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of `flat.FAST` for those of `flat.TREES`; all empty where the forest is too large for them."""
    inner = arrays["left"] >= 0
    by_category = inner & (arrays["flags"] & BY_CATEGORY != 0)
    places = _Places(np.zeros(len(inner), dtype=np.int64), np.full(len(inner), NEVER, dtype=np.int64))
    found = _numbers(arrays, np.flatnonzero(inner & ~by_category), places)
    if not _categories(arrays, np.flatnonzero(by_category), places, found) or not len(arrays["roots"]):
        return _typed({})
    levels = _levels(arrays)
    padded = len(arrays["roots"]) << levels
    if levels <= DEEPEST and arrays["leaves"].shape[1] == 1 and padded <= 8 * len(inner) + SMALL:
        found.update(_perfect(arrays, places, levels))
    else:
        found["deep"] = _deep(arrays, places)
    return _typed(found)


def _typed(found: Mapping[str, Array]) -> dict[str, Array]:
    nothing = np.zeros(0)
    return {name: np.ascontiguousarray(found.get(name, nothing), dtype=dtype) for name, dtype in FAST.items()}


def _keys(values: Array) -> Array:
    """int32 in the order of the float32 values, which are not -0.0."""
    bits = values.astype(np.float32).view(np.int32)
    found: Array = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return found


def _numbers(arrays: Mapping[str, Array], nodes: Array, places: _Places) -> dict[str, Array]:
    """The columns of numbers, by feature."""
    features, of = np.unique(arrays["feature"][nodes], return_inverse=True)
    index = np.zeros(len(nodes), dtype=np.int64)
    cuts, starts = [np.empty(0, dtype=np.int32)], [0]
    for number in range(len(features)):
        mine = of == number
        values, index[mine] = np.unique(arrays["threshold"][nodes[mine]], return_inverse=True)
        # One less than a power of two, so that a search has a fixed number of steps; nothing reaches the last.
        room = (1 << len(values).bit_length()) - 1
        cuts.append(np.concatenate([_keys(values), np.full(room - len(values), 2**31 - 1, dtype=np.int32)]))
        starts.append(starts[-1] + room)
    right = (arrays["flags"][nodes] & MISSING_LEFT == 0).astype(np.int64)
    columns, place = np.unique((of * 2**32 + index // CUTS) * 2 + right, return_inverse=True)
    places.column[nodes], places.cut[nodes] = place, index % CUTS
    return {
        "number": features,
        "cut_start": np.array(starts),
        "cuts": np.concatenate(cuts),
        "column_start": np.searchsorted(columns, np.arange(len(features) + 1) * 2**33),
        "shift": (columns // 2 % 2**32) * CUTS,
        "missing": columns % 2 * CUTS,
    }


def _categories(arrays: Mapping[str, Array], nodes: Array, places: _Places, found: dict[str, Array]) -> bool:
    """The columns of categories, by feature; False where they are too many."""
    first = len(found["shift"])
    features = np.unique(arrays["feature"][nodes])
    tables, starts, columns, sizes = [np.empty(0, dtype=np.uint8)], [0], [first], []
    for feature in features:
        sets, place = _distinct(arrays, nodes[arrays["feature"][nodes] == feature])
        places.column[nodes[arrays["feature"][nodes] == feature]] = columns[-1] + place
        size = max((len(bits) for bits, _ in sets), default=0)
        stride = -(-len(sets) // LANES) * LANES
        starts.append(starts[-1] + (size + 2) * stride)
        columns.append(columns[-1] + stride)
        sizes.append(size)
        if columns[-1] > MOST_COLUMNS or starts[-1] > MOST_TABLE:
            return False
        tables.append(_table(sets, size, stride).reshape(-1))
    places.cut[nodes] = 0
    found.update(category=features, category_column=np.array(columns), category_size=np.array(sizes))
    found.update(table_start=np.array(starts), tables=np.concatenate(tables))
    return columns[-1] <= MOST_COLUMNS


def _distinct(arrays: Mapping[str, Array], nodes: Array) -> tuple[list[tuple[Array, bool]], Array]:
    """The different splits of one feature: bool by category, and whether missing goes right; by node, which it is."""
    number: dict[tuple[bytes, bool], int] = {}
    place = np.empty(len(nodes), dtype=np.int64)
    for at, node in enumerate(nodes):
        start, end = arrays["set_start"][arrays["set"][node] :][:2]
        words = arrays["set_bits"][start:end].astype("<u4").tobytes().rstrip(b"\0")
        key = words, not arrays["flags"][node] & MISSING_LEFT
        place[at] = number.setdefault(key, len(number))
    return [
        (np.unpackbits(np.frombuffer(words, dtype=np.uint8), bitorder="little"), right) for words, right in number
    ], place


def _table(sets: list[tuple[Array, bool]], size: int, stride: int) -> Array:
    """uint8[size + 2, stride]: by category, then one that is in no set, then missing; 1 is right."""
    table = np.zeros((size + 2, stride), dtype=np.uint8)
    for at, (bits, right) in enumerate(sets):
        table[: len(bits), at] = bits
        table[size + 1, at] = right
    return table


def _levels(arrays: Mapping[str, Array]) -> int:
    """Splits on the longest way down."""
    level, depth = arrays["roots"].astype(np.int64), 0
    while len(level := arrays["left"][level][arrays["left"][level] >= 0].astype(np.int64)):
        level, depth = np.concatenate([level, level + 1]), depth + 1
    return depth


def _perfect(arrays: Mapping[str, Array], places: _Places, levels: int) -> dict[str, Array]:
    """Trees padded to `levels`: node i's children are 2i and 2i+1, the root is 1, and 0 is nobody."""
    levels = max(1, levels)
    trees = len(arrays["roots"])
    nodes = np.full((trees, 1 << levels), NEVER << 16, dtype=np.uint32)
    level = arrays["roots"].astype(np.int64).reshape(-1, 1)
    for depth in range(levels):
        inner = arrays["left"][level] >= 0
        record = places.column[level] | places.cut[level] << 16
        nodes[:, 1 << depth : 2 << depth] = np.where(inner, record, NEVER << 16)
        left = np.where(inner, arrays["left"][level], level)
        level = np.stack([left, np.where(inner, left + 1, level)], axis=2).reshape(trees, -1)
    column, cut = nodes & 0xFFFF, nodes >> 16
    leaf = arrays["leaves"].reshape(-1)[-1 - arrays["left"][level]]
    found = {"lane_column": column, "lane_cut": cut.astype(np.int64) + 1 - 128, "perfect_leaf": leaf}
    return found | ({"narrow": column | cut << 8} if column.max() < 256 else {"wide": nodes})


def _deep(arrays: Mapping[str, Array], places: _Places) -> Array:
    """uint64 by node: the left child, the column, the cut. A leaf is its own left child, and nothing goes right of it."""
    inner = arrays["left"] >= 0
    left = np.where(inner, arrays["left"], np.arange(len(inner))).astype(np.uint64)
    found: Array = (
        left | places.column.astype(np.uint64) << 32 | np.where(inner, places.cut, 255).astype(np.uint64) << 48
    )
    return found
