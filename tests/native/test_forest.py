"""A compiled forest answers what XGBoost answers, to the last bit where XGBoost adds up in the order of its trees."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perennial_native.forest import Forest, agrees, flatten

OBJECTIVES = [
    ("any", {"objective": "reg:squarederror"}),
    ("positive", {"objective": "reg:squaredlogerror"}),
    ("any", {"objective": "reg:pseudohubererror"}),
    ("any", {"objective": "reg:absoluteerror"}),
    ("any", {"objective": "reg:quantileerror", "quantile_alpha": 0.3}),
    ("any", {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}),
    ("binary", {"objective": "reg:logistic"}),
    ("binary", {"objective": "binary:logistic"}),
    ("binary", {"objective": "binary:logistic", "scale_pos_weight": 3}),
    ("binary", {"objective": "binary:logitraw"}),
    ("binary", {"objective": "binary:hinge"}),
    ("count", {"objective": "count:poisson"}),
    ("positive", {"objective": "reg:gamma"}),
    ("count", {"objective": "reg:tweedie"}),
    ("positive", {"objective": "survival:cox"}),
    ("positive", {"objective": "survival:aft"}),
    ("class", {"objective": "rank:ndcg"}),
    ("binary", {"objective": "rank:map"}),
    ("class", {"objective": "rank:pairwise"}),
    ("class", {"objective": "multi:softprob", "num_class": 4}),
    ("class", {"objective": "multi:softmax", "num_class": 4}),
    ("many", {"objective": "reg:squarederror"}),
    ("both", {"objective": "binary:logistic"}),
]
SHAPES = [
    {"max_depth": 1},
    {"max_depth": 2},
    {"max_depth": 3, "max_cat_to_onehot": 100},
    {"max_depth": 4, "min_child_weight": 0},
    {"max_depth": 5, "max_cat_threshold": 3},
    {"max_depth": 7, "min_child_weight": 0},
    {"max_depth": 8, "min_child_weight": 0},
    {"max_depth": 9, "min_child_weight": 0},
    {"max_depth": 30, "min_child_weight": 0},
    {"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 60},
    {"num_parallel_tree": 3, "subsample": 0.5},
    {"gamma": 1e9},
    {"tree_method": "approx"},
    {"base_score": 0.25},
    {"max_bin": 2},
]


def ids(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(f"{name}={text}" for name, text in value.items())


def same(forest: Forest, booster: Any, matrix: Any) -> None:
    """One row at a time, a few, and all at once: the same bits."""
    expected = booster.inplace_predict(matrix)
    for count in (1, 2, 7, 16, 33, len(matrix)):
        parts = [forest.predict(matrix[at : at + count]) for at in range(0, len(matrix), count)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert agrees(forest, booster, matrix) is None


@pytest.mark.parametrize(("label", "params"), OBJECTIVES, ids=ids)
def test_every_objective_is_answered_to_the_last_bit(teacher: Any, forest_of: Any, rows_of: Any, label, params) -> None:
    booster = teacher.train(label, **params)
    same(forest_of(booster), booster, rows_of(2))


@pytest.mark.parametrize("shape", SHAPES, ids=ids)
def test_trees_of_every_shape_are_answered_to_the_last_bit(teacher: Any, forest_of: Any, rows_of: Any, shape) -> None:
    booster = teacher.train("any", **shape)
    same(forest_of(booster), booster, rows_of(3))


@pytest.mark.parametrize("shape", [{"max_depth": 4}, {"max_depth": 12, "min_child_weight": 0}], ids=ids)
@pytest.mark.parametrize("method", ["exact", "hist"])
def test_numbers_alone_are_answered_to_the_last_bit(teacher: Any, forest_of: Any, rows_of: Any, shape, method) -> None:
    booster = teacher.train("binary", numeric=True, objective="binary:logistic", tree_method=method, rounds=40, **shape)
    same(forest_of(booster), booster, rows_of(4))


@pytest.mark.parametrize("label", ["many", "both", "class"])
def test_leaves_of_several_outputs_are_answered_to_the_last_bit(
    teacher: Any, forest_of: Any, rows_of: Any, label
) -> None:
    objective = {"many": "reg:squarederror", "both": "binary:logistic", "class": "multi:softprob"}[label]
    classes = {"num_class": 4} if label == "class" else {}
    params = {"objective": objective, "multi_strategy": "multi_output_tree", **classes}
    booster = teacher.train(label, numeric=True, **params)
    same(forest_of(booster), booster, rows_of(5))


@pytest.mark.parametrize(("label", "params"), OBJECTIVES, ids=ids)
def test_dropped_trees_keep_their_weights(teacher: Any, forest_of: Any, rows_of: Any, label, params) -> None:
    booster = teacher.train(label, booster="dart", rate_drop=0.4, rounds=12, **params)
    assert agrees(forest_of(booster), booster, rows_of(6)) is None


def test_a_sliced_booster_answers_with_the_trees_that_are_left(teacher: Any, forest_of: Any, rows_of: Any) -> None:
    booster = teacher.train("class", objective="multi:softprob", num_class=4, rounds=9)
    whole = booster.inplace_predict(rows_of(7))
    part = booster[:4]
    assert not np.array_equal(part.inplace_predict(rows_of(7)), whole)
    same(forest_of(part), part, rows_of(7))


@pytest.mark.parametrize("score", [{}, {"base_score": 0.3}], ids=ids)
@pytest.mark.parametrize("objective", ["binary:logistic", "reg:gamma", "reg:squarederror"])
def test_no_trees_answer_the_base_score(teacher: Any, forest_of: Any, rows_of: Any, objective, score) -> None:
    booster = teacher.train(
        "positive" if objective == "reg:gamma" else "binary", objective=objective, rounds=0, **score
    )
    forest = forest_of(booster)
    same(forest, booster, rows_of(8))
    assert len(set(forest.predict(rows_of(8)))) == 1


@pytest.mark.parametrize("score", [0.0, 1e-7, 0.3, 1.0])
def test_a_base_score_is_a_probability_where_the_objective_says_so(
    teacher: Any, forest_of: Any, rows_of: Any, score
) -> None:
    booster = teacher.train("binary", objective="binary:logistic", base_score=score)
    same(forest_of(booster), booster, rows_of(9))


def test_a_base_score_without_brackets_is_read_as_older_releases_wrote_it(teacher: Any, rows_of: Any) -> None:
    booster = teacher.train("many")
    model = json.loads(booster.save_raw("json"))
    for text, expected in (("[5E-1,1E0,2E0]", [0.5, 1, 2]), ("5E-1", [0.5] * 3), ("[5E-1]", [0.5] * 3)):
        model["learner"]["learner_model_param"]["base_score"] = text
        assert flatten(model).arrays["base"].tolist() == expected


def test_rows_that_miss_everything_take_the_default_ways(teacher: Any, forest_of: Any) -> None:
    booster = teacher.train("any", max_depth=6, min_child_weight=0)
    same(forest_of(booster), booster, np.full((40, 6), np.nan, dtype=np.float32))


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC12345])
def test_every_kind_of_nan_is_missing(teacher: Any, forest_of: Any, rows_of: Any, bits) -> None:
    booster = teacher.train("any", max_depth=6)
    matrix = rows_of(10)
    matrix.view(np.uint32)[np.isnan(matrix)] = bits
    assert np.isnan(matrix).any()
    same(forest_of(booster), booster, matrix)


def test_a_value_on_a_threshold_goes_right_and_the_next_below_goes_left(
    teacher: Any, forest_of: Any, flat_of: Any
) -> None:
    booster = teacher.train("any", numeric=True, max_depth=4, tree_method="exact", rounds=30)
    flat = flat_of(booster)
    inner = flat.arrays["left"] >= 0
    cuts, features = flat.arrays["threshold"][inner], flat.arrays["feature"][inner]
    matrix = np.zeros((len(cuts), 6), dtype=np.float32)
    matrix[np.arange(len(cuts)), features] = cuts
    below = matrix.copy()
    below[np.arange(len(cuts)), features] = np.nextafter(cuts, np.float32(-np.inf))
    assert len(cuts) > 100
    same(forest_of(booster), booster, np.concatenate([matrix, below]))


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 1.0, 39.0, 40.0, -1.0])


@settings(max_examples=60, deadline=None)
@given(matrix=hnp.arrays(np.float32, st.tuples(st.integers(0, 70), st.just(6)), elements=FLOATS))
@pytest.mark.parametrize("depth", [3, 6, 11])
def test_whatever_the_rows_hold_the_answers_are_xgboosts(teacher: Any, forest_of: Any, depth, matrix) -> None:
    booster, forest = cached(teacher, forest_of, depth)
    if len(matrix):
        np.testing.assert_array_equal(forest.predict(matrix), booster.inplace_predict(matrix))
    else:
        assert forest.predict(matrix).shape == (0,)


CACHE: dict[int, Any] = {}


def cached(teacher: Any, forest_of: Any, depth: int) -> Any:
    if depth not in CACHE:
        booster = teacher.train("any", max_depth=depth, min_child_weight=0, rounds=20)
        CACHE[depth] = booster, forest_of(booster)
    return CACHE[depth]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    depth=st.integers(1, 12),
    columns=st.integers(1, 40),
    categories=st.sampled_from([2, 5, 33, 64, 70, 300]),
    onehot=st.sampled_from([1, 4, 1000]),
    bins=st.sampled_from([2, 16, 256, 1000]),
)
def test_whatever_was_trained_the_answers_are_xgboosts(seed, depth, columns, categories, onehot, bins) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(500, columns)).astype(np.float32)
    kinds = rng.choice(["q", "c"], columns).tolist()
    for place, kind in enumerate(kinds):
        if kind == "c":
            matrix[:, place] = rng.integers(0, categories, len(matrix))
    matrix[rng.random(matrix.shape) < rng.choice([0, 0.3])] = np.nan
    label = np.nan_to_num(matrix) @ rng.normal(size=columns) + rng.normal(size=len(matrix))
    params = {"max_depth": depth, "max_cat_to_onehot": onehot, "max_bin": bins, "min_child_weight": 0, "nthread": 1}
    data = xgb.DMatrix(matrix, label, feature_types=kinds, enable_categorical=True)
    booster = xgb.train(params, data, int(rng.integers(1, 12)))
    asked = matrix * rng.choice(np.array([1, 1, 1, 2, -1, 1.01], dtype=np.float32), matrix.shape)
    same(Forest(flatten(json.loads(booster.save_raw("json")))), booster, asked)
