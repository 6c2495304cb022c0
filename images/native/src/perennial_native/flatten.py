"""XGBoost's JSON model to a flat forest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perennial_native.columns import fast
from perennial_native.flat import Array, Flat
from perennial_native.trees import Tree, Unsupported, joined, read_tree

MOST_FEATURES = 65_535
EPSILON = np.float32(1e-6)
"""XGBoost keeps a base_score that is a probability this far from 0 and 1."""

TRANSFORMS: Mapping[str, str] = {
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "sigmoid"),
    **dict.fromkeys(("reg:gamma", "reg:tweedie", "count:poisson", "survival:cox", "survival:aft"), "exp"),
    **dict.fromkeys(("reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:pseudohubererror"), "identity"),
    **dict.fromkeys(("reg:absoluteerror", "reg:quantileerror", "binary:logitraw"), "identity"),
    **dict.fromkeys(("rank:ndcg", "rank:map", "rank:pairwise"), "identity"),
    "binary:hinge": "hinge",
    "multi:softprob": "softprob",
    "multi:softmax": "softmax",
}
"""By objective, how margins become predictions."""


def flatten(model: Mapping[str, Any]) -> Flat:
    """The forest of a parsed JSON model (`json.loads(booster.save_raw("json"))`).

    It answers with all of its trees, as `Booster.inplace_predict` does: slice the booster first where only the best iterations count.

    Raises:
        Unsupported: the model is no forest, is damaged, or does something that is not known here.
    """
    try:
        return _flatten(model["learner"])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise Unsupported(f"this is not a JSON model as XGBoost writes it: {type(error).__name__}: {error}") from error


def _flatten(learner: Mapping[str, Any]) -> Flat:
    raw, weights = _forest(learner["gradient_booster"])
    about = learner["learner_model_param"]
    features = int(about["num_feature"])
    if not 1 <= features <= MOST_FEATURES:
        raise Unsupported(f"the model has {features} features; from 1 to {MOST_FEATURES} can be flattened")
    transform = TRANSFORMS.get(objective := learner["objective"]["name"])
    if transform is None:
        raise Unsupported(f"how objective {objective!r} makes predictions of margins is not known here")
    groups = max(1, int(about["num_class"]), int(about.get("num_target", 1)))
    width = _width(raw["trees"], groups)
    arrays = joined(
        [_weighted(read_tree(tree, features, width), weights, place) for place, tree in enumerate(raw["trees"])], width
    )
    arrays["groups"] = _groups(raw, groups, width)
    # A score that was to be estimated and never was, because nothing was trained, is a margin: so XGBoost answers it.
    untrained = not raw["trees"] and str(about.get("boost_from_average", "0")) == "1"
    arrays["base"] = _margins(str(about["base_score"]), groups, "identity" if untrained else transform)
    arrays.update(fast(arrays))
    for array in arrays.values():
        array.setflags(write=False)
    return Flat(features, 1 if transform == "softmax" else groups, transform, arrays)


def _forest(booster: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[float] | None]:
    """The trees and, of dart, their weights."""
    name = booster["name"]
    if name == "gbtree":
        return booster["model"], None
    if name == "dart":
        model, weights = booster["gbtree"]["model"], booster["weight_drop"]
        if len(weights) != len(model["trees"]):
            raise Unsupported(f"dart has {len(weights)} weights for {len(model['trees'])} trees")
        return model, weights
    raise Unsupported(f"the booster is {name!r}; only forests (gbtree, dart) can be flattened")


def _width(trees: Sequence[Mapping[str, Any]], groups: int) -> int:
    """Values in a leaf: 1, or one per group where each tree answers all of them."""
    widths = {max(1, int(tree["tree_param"].get("size_leaf_vector", 1))) for tree in trees} or {1}
    if len(widths) > 1 or not widths <= {1, groups}:
        raise Unsupported(f"the leaves hold {sorted(widths)} values where the model has {groups} outputs")
    return widths.pop()


def _weighted(tree: Tree, weights: Sequence[float] | None, place: int) -> Tree:
    if weights is None:
        return tree
    return tree._replace(leaves=tree.leaves * np.float32(weights[place]))


def _groups(raw: Mapping[str, Any], groups: int, width: int) -> Array:
    """By tree, the output that it adds to; 0 where it adds to all."""
    found = np.array(raw["tree_info"], dtype=np.int32).reshape(-1)
    if len(found) != len(raw["trees"]):
        raise Unsupported(f"the model says for {len(found)} trees of {len(raw['trees'])} which output they add to")
    if width > 1:
        return np.zeros_like(found)
    if len(found) and not 0 <= found.min() <= found.max() < groups:
        raise Unsupported(f"a tree adds to output {found.max()} of a model with {groups}")
    return found


def _margins(text: str, groups: int, transform: str) -> Array:
    """float32[groups]: what a row has before the first tree. XGBoost keeps it as a prediction, in one of two forms: 5E-1 or [5E-1,1E0]."""
    scores = np.array([float(word) for word in text.strip("[] ").split(",")], dtype=np.float32)
    if len(scores) not in {1, groups}:
        raise Unsupported(f"base_score has {len(scores)} values for {groups} outputs")
    scores = np.broadcast_to(scores, groups).copy()
    # XGBoost calls logf, which is right to the last bit in all but rare cases; so is the logarithm in double precision, rounded once.
    with np.errstate(divide="ignore", invalid="ignore"):
        if transform == "sigmoid":
            odds = np.float32(1) / np.clip(scores, EPSILON, np.float32(1) - EPSILON) - np.float32(1)
            return (-np.log(odds.astype(np.float64))).astype(np.float32)
        if transform == "exp":
            return np.log(scores.astype(np.float64)).astype(np.float32)
    return scores
