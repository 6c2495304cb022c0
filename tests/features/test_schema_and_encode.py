"""Training and serving build the same matrix."""

from __future__ import annotations

import numpy as np
import pytest

from perennial_features.encode import encode, encode_all
from perennial_features.schema import MAX_CATEGORIES, Feature, FeatureSchema, infer
from perennial_spec.errors import FeatureError


def text(*values: str | None) -> np.ndarray:
    return np.array(values, dtype=object)


def test_the_schema_tells_kinds_missing_values_and_categories_by_frequency() -> None:
    columns = {
        "n": np.array([1.0, np.nan]),
        "i": np.array([1, 2]),
        "b": np.array([True, False]),
        "t": text("a", "b"),
        "at": np.array(["2013-01-01", "NaT"], dtype="datetime64[us]"),
    }
    schema = infer(columns, {"f": columns["n"], "g": text("b", "a", "b", None, "c")})
    assert [(c.name, c.kind, c.nullable) for c in schema.inputs] == [
        ("n", "number", True),
        ("i", "integer", False),
        ("b", "boolean", False),
        ("t", "text", False),
        ("at", "timestamp", True),
    ]
    assert schema.features[1].categories == ("b", "a", "c")  # the most frequent first, ties by name
    assert schema.feature_types == ["q", "c"]
    assert FeatureSchema.from_json(schema.to_json()) == schema


def test_too_many_categories_are_an_identifier() -> None:
    with pytest.raises(FeatureError, match="feature 'id' has 10,001 categories"):
        infer({}, {"id": text(*map(str, range(MAX_CATEGORIES + 1)))})


SCHEMA = FeatureSchema(
    inputs=(),
    features=(Feature(name="x", kind="numeric"), Feature(name="c", kind="categorical", categories=("a", "b"))),
)


def test_categories_become_codes_and_unseen_ones_are_told_apart_from_missing_ones() -> None:
    found = encode_all({"c": text("b", None, "new", "a"), "x": np.array([1, 2, 3, 4])}, SCHEMA)
    assert found.matrix.dtype == np.float32
    np.testing.assert_array_equal(found.matrix, [[1, 1], [2, np.nan], [3, np.nan], [4, 0]])
    assert {place: mask.tolist() for place, mask in found.unseen.items()} == {1: [False, False, True, False]}


def test_nothing_unseen_costs_no_mask() -> None:
    assert encode_all({"c": text("b", None), "x": np.zeros(2)}, SCHEMA).unseen == {}


def test_infinite_and_huge_numbers_are_missing() -> None:
    found = encode({"x": np.array([np.inf, -np.inf, 1e300, 1.0]), "c": text("a", "a", "a", "a")}, SCHEMA)
    np.testing.assert_array_equal(found[:, 0], [np.nan, np.nan, np.nan, 1])


def test_booleans_are_zero_and_one() -> None:
    assert encode({"x": np.array([True, False]), "c": text("a", "b")}, SCHEMA)[:, 0].tolist() == [1.0, 0.0]


def test_a_batch_of_nothing_but_missing_values_has_no_type_of_its_own() -> None:
    found = encode({"x": text(None, None), "c": np.array([np.nan, np.nan])}, SCHEMA)
    assert np.isnan(found).all()


@pytest.mark.parametrize(
    ("features", "what"),
    [
        ({"x": np.zeros(1)}, "returned no 'c'"),
        ({"x": text("warm"), "c": text("a")}, "returned 'x' as text"),
        ({"x": np.zeros(1), "c": np.zeros(1)}, "returned 'c' as numbers"),
    ],
)
def test_features_of_another_shape_than_in_training_are_refused(features: dict[str, np.ndarray], what: str) -> None:
    with pytest.raises(FeatureError, match=what):
        encode(features, SCHEMA)
