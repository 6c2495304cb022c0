"""One tree of XGBoost's JSON model, checked and renumbered, and many of them in one set of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from perennial_native.flat import BY_CATEGORY, MISSING_LEFT, Array

MOST_NODES = 2**31 - 2
MOST_CATEGORY = 2**24
"""XGBoost reads categories as float32, and takes none from here on."""


class Unsupported(Exception):
    """The model cannot be flattened so that it answers as XGBoost does. The text says why."""


class Tree(NamedTuple):
    """Nodes breadth first: the root is 0, a right child follows its left sibling, children come after their parent."""

    feature: Array
    """int32[nodes]; 0 in leaves, as are threshold and flags."""
    threshold: Array
    """float32[nodes]; below goes left."""
    left: Array
    """int32[nodes]: the left child; in leaves, -1 - the leaf's number."""
    flags: Array
    """uint8[nodes]: `MISSING_LEFT`, `BY_CATEGORY`."""
    sets: Mapping[int, Array]
    """By node that splits by category: uint32 words, lowest category first, of those that go right."""
    leaves: Array
    """float32[leaves, width]."""


def read_tree(raw: Mapping[str, Any], features: int, width: int) -> Tree:
    """The tree. Raises Unsupported where it is damaged, and KeyError, ValueError, TypeError, IndexError where it is no tree at all."""
    left, right = (np.array(raw[name], dtype=np.int64).reshape(-1) for name in ("left_children", "right_children"))
    total = len(left)
    feature, threshold, default, kind = (
        _column(raw, name, total, dtype)
        for name, dtype in (
            ("split_indices", np.int64),
            ("split_conditions", np.float32),
            ("default_left", np.bool_),
            ("split_type", np.bool_),
        )
    )
    order, child = _breadth_first(left, right)
    leaf = left[order] < 0
    if ((feature[order] < 0) | (feature[order] >= features))[~leaf].any():
        raise Unsupported(f"a tree splits by feature {feature[order][~leaf].max()} of {features}")
    number = np.cumsum(leaf) - 1
    values = _leaves(raw, order[leaf], right, threshold, width)
    threshold = np.where(np.isnan(threshold), np.float32(-np.inf), threshold)  # nothing is below NaN, or below -inf
    flags = np.where(default, MISSING_LEFT, 0) | np.where(kind, BY_CATEGORY, 0)
    return Tree(
        np.where(leaf, 0, feature[order]).astype(np.int32),
        # -0.0 is 0.0: both sides of a comparison may then be compared as integers
        np.where(leaf, np.float32(0), threshold[order]) + np.float32(0),
        np.where(leaf, -1 - number, child).astype(np.int32),
        np.where(leaf, 0, flags[order]).astype(np.uint8),
        _sets(raw, order, leaf, kind),
        values,
    )


def _column(raw: Mapping[str, Any], name: str, total: int, dtype: Any) -> Array:
    found: Array = np.array(raw[name], dtype=dtype).reshape(-1)
    if len(found) < total or total == 0:
        raise Unsupported(f"a tree has {len(found)} {name} for {total} nodes")
    return found


def _breadth_first(left: Array, right: Array) -> tuple[Array, Array]:
    """The old numbers of the nodes that can be reached, in their new order; by new number, the new number of the left child.

    A tree that was pruned keeps its dead nodes in the file; they are left out.
    """
    total = len(left)
    levels, children = [], []
    level, seen = np.zeros(1, dtype=np.int64), 1
    while len(level):
        levels.append(level)
        inner = left[level] >= 0
        split = level[inner]
        child = np.zeros(len(level), dtype=np.int64)
        child[inner] = seen + 2 * np.arange(len(split))
        children.append(child)
        below = np.stack([left[split], right[split]], axis=1)
        if len(below) and (below.max() >= total or below.min() < 0):
            raise Unsupported(f"a node's child is {below.max()} in a tree of {total} nodes")
        if (below[:, 1] != below[:, 0] + 1).any():
            raise Unsupported(
                "a right child does not follow its left sibling, and XGBoost is of two minds about where it is"
            )
        level, seen = below.reshape(-1), seen + below.size
        if seen > total:
            raise Unsupported("a node of a tree has two parents")
    return np.concatenate(levels), np.concatenate(children)


def _leaves(raw: Mapping[str, Any], leaves: Array, right: Array, threshold: Array, width: int) -> Array:
    """float32[leaves, width]: XGBoost keeps a leaf's value where a node has its threshold, a vector's place in its right child's."""
    if width == 1:
        return threshold[leaves].reshape(-1, 1)
    vectors = np.array(raw["leaf_weights"], dtype=np.float32).reshape(-1, width)
    places = right[leaves]
    if places.min() < 0 or places.max() >= len(vectors):
        raise Unsupported(f"a leaf's values are the {places.max()}th of {len(vectors)}")
    found: Array = vectors[places]
    return found


def _sets(raw: Mapping[str, Any], order: Array, leaf: Array, kind: Array) -> dict[int, Array]:
    """By new number of the node."""
    categories = np.array(raw["categories"], dtype=np.int64).reshape(-1)
    found = {}
    for node, start, size in zip(
        raw["categories_nodes"], raw["categories_segments"], raw["categories_sizes"], strict=True
    ):
        chosen = categories[start : start + size]
        if (
            start < 0
            or len(chosen) != size
            or size < 0
            or (size and not 0 <= chosen.min() <= chosen.max() < MOST_CATEGORY)
        ):
            raise Unsupported("the categories of a split are not in the file")
        found[int(node)] = _words(chosen)
    split = (
        {int(old): new for new, old in enumerate(order) if kind[old] and not leaf[new]} if found or kind.any() else {}
    )
    if missing := split.keys() - found.keys():
        raise Unsupported(f"{len(missing)} splits by category have no categories")
    return {new: found[old] for old, new in split.items()}


def _words(categories: Array) -> Array:
    words = np.zeros(int(categories.max(initial=-1)) // 32 + 1, dtype=np.uint32)
    np.bitwise_or.at(words, categories // 32, np.uint32(1) << (categories % 32).astype(np.uint32))
    return words


def joined(trees: Sequence[Tree], width: int) -> dict[str, Array]:
    """All of them in the arrays of `flat.TREES`, but for `groups` and `base`."""
    nodes = np.cumsum([0, *(len(tree.left) for tree in trees)])
    leaves = np.cumsum([0, *(len(tree.leaves) for tree in trees)])
    if nodes[-1] > MOST_NODES:
        raise Unsupported(f"the model has {nodes[-1]} nodes; up to {MOST_NODES} can be flattened")
    left = [
        np.where(tree.left < 0, tree.left - leaf, tree.left + node)
        for tree, node, leaf in zip(trees, nodes[:-1], leaves[:-1], strict=True)
    ]
    sets = [(node + at, words) for tree, node in zip(trees, nodes[:-1], strict=True) for at, words in tree.sets.items()]
    place = np.full(nodes[-1], -1, dtype=np.int32)
    place[np.array([at for at, _ in sets], dtype=np.int64)] = np.arange(len(sets), dtype=np.int32)
    return {
        "roots": nodes[:-1].astype(np.int32),
        "feature": _all([tree.feature for tree in trees], np.int32),
        "threshold": _all([tree.threshold for tree in trees], np.float32),
        "left": _all(left, np.int32),
        "flags": _all([tree.flags for tree in trees], np.uint8),
        "set": place,
        "set_start": np.cumsum([0, *(len(words) for _, words in sets)], dtype=np.int64),
        "set_bits": _all([words for _, words in sets], np.uint32),
        "leaves": np.concatenate([np.empty((0, width), dtype=np.float32), *(tree.leaves for tree in trees)]),
    }


def _all(parts: Sequence[Array], dtype: Any) -> Array:
    found: Array = np.concatenate([np.empty(0, dtype=dtype), *parts]).astype(dtype)
    return found
