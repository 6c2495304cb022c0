"""Drift is counted: every value falls into exactly one bin of bounded name, in training as in service."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_features.attribution import Attribution
from perennial_features.encode import Encoded, encode_all
from perennial_features.reference import MAX_NAME, Reference, bin_name, describe
from perennial_features.schema import Feature, FeatureSchema
from perennial_spec import names

NUMERIC = FeatureSchema(inputs=(), features=(Feature(name="x", kind="numeric"),))


def numeric(values: list[float] | np.ndarray) -> Reference:
    matrix = np.asarray(values, dtype=np.float32)[:, None]
    return Reference.of(matrix, NUMERIC, np.zeros(len(matrix)))


def counts_of(reference: Reference, feature: str) -> dict[str, int]:
    return {name: int(n) for (of, name), n in zip(reference.series, reference.counts, strict=True) if of == feature}


def test_bins_are_deciles_closed_on_the_right() -> None:
    reference = numeric(np.arange(1, 101))
    counts = counts_of(reference, "x")
    assert list(counts)[:2] == ["(-inf,10]", "(10,20]"]
    assert list(counts)[-2:] == ["(90,inf)", "missing"]
    assert set(counts.values()) == {10, 0}
    at_edge = reference.count(np.array([[10.0], [10.0001]], dtype=np.float32), np.zeros(2))
    assert at_edge[:2].tolist() == [1, 1]


def test_the_range_of_the_training_data_is_known_of_numbers_and_not_of_predictions() -> None:
    reference = numeric([3.0, np.nan, -1.5, 0.1])
    assert [(each.low, each.high) for each in reference.features] == [(-1.5, 3.0), (None, None)]
    assert reference.ranged == ("x",)
    assert numeric([np.nan, np.nan]).ranged == ()
    encoded, schema = categories("a", "b", known=("a", "b"))
    assert Reference.of(encoded, schema, np.zeros(2)).ranged == ()


def test_a_reference_of_an_older_release_loads_and_no_value_is_out_of_its_range() -> None:
    reference = numeric([1.0, 2.0])
    older = json.loads(reference.to_json())
    for each in older["features"]:
        del each["low"], each["high"]
    loaded = Reference.from_json(json.dumps(older))
    assert loaded.ranged == ()
    assert loaded.series == reference.series


def test_duplicate_edges_merge_and_no_bin_is_empty_by_construction() -> None:
    counts = counts_of(numeric([0.0] * 70 + [1.0] * 30), "x")
    assert counts == {"(-inf,0]": 70, "(0,inf)": 30, "missing": 0}


def test_a_constant_has_a_bin_of_its_own_so_that_leaving_it_is_seen() -> None:
    reference = numeric([5.0] * 100)
    for other in (4.0, 6.0):
        live = reference.count(np.full((100, 1), other, dtype=np.float32), np.zeros(100))
        assert reference.psi(live)["x"] > 1
    same = reference.count(np.full((100, 1), 5.0, dtype=np.float32), np.zeros(100))
    assert reference.psi(same)["x"] == 0


def test_missing_values_are_counted_and_a_feature_of_nothing_else_has_two_bins() -> None:
    assert counts_of(numeric([1.0, np.nan, 2.0, np.nan]), "x")["missing"] == 2
    assert counts_of(numeric([np.nan, np.nan]), "x") == {"(-inf,inf)": 0, "missing": 2}


def categories(*values: str | None, known: tuple[str, ...]) -> tuple[Encoded, FeatureSchema]:
    schema = FeatureSchema(inputs=(), features=(Feature(name="c", kind="categorical", categories=known),))
    return encode_all({"c": np.array(values, dtype=object)}, schema), schema


def test_unseen_categories_are_other_and_not_missing() -> None:
    encoded, schema = categories("a", "new", None, "b", "new", known=("a", "b"))
    reference = Reference.of(encoded, schema, np.zeros(5))
    expected = {"a": 1, "b": 1, "other": 2, "missing": 1}
    assert counts_of(reference, "c") == expected
    assert reference.count(encoded, np.zeros(5))[:4].tolist() == list(expected.values())
    # Without the mask the distinction is lost, and only that.
    assert reference.count(encoded.matrix, np.zeros(5))[:4].tolist() == [1, 1, 0, 3]


def test_categories_beyond_the_most_frequent_share_one_bin() -> None:
    known = tuple(f"c{place:03}" for place in range(100))
    encoded, schema = categories(*known, known=known)
    counts = counts_of(Reference.of(encoded, schema, np.zeros(100)), "c")
    assert len(counts) == 34
    assert counts["c000"] == 1
    assert counts["other"] == 68


def test_predictions_are_one_more_feature() -> None:
    predictions = np.linspace(0, 1, 100)
    reference = Reference.of(np.zeros((100, 1), dtype=np.float32), NUMERIC, predictions)
    assert reference.features[-1].feature == names.PREDICTION_FEATURE
    live = reference.count(np.zeros((50, 1), dtype=np.float32), np.full(50, 0.99))
    assert reference.psi(live)[names.PREDICTION_FEATURE] > 1
    assert reference.psi(live)["x"] < 0.1


@pytest.mark.parametrize(
    ("category", "label"),
    [
        ("Oslo", "Oslo"),
        ("", "="),
        ("other", "=other"),
        ("missing", "=missing"),
        ("=x", "==x"),
    ],
)
def test_labels_are_never_empty_or_reserved(category: str, label: str) -> None:
    assert bin_name(category) == label


@given(st.lists(st.text(max_size=80), unique=True, max_size=30))
def test_labels_are_bounded_and_stay_apart(texts: list[str]) -> None:
    labels = [bin_name(text) for text in texts]
    assert len(set(labels)) == len(texts)
    assert all(0 < len(label) <= MAX_NAME for label in labels)
    assert not {"other", "missing"} & set(labels)


floats = st.floats(width=32, allow_infinity=False)


@given(st.lists(floats, min_size=1, max_size=200), st.lists(floats, min_size=1, max_size=50))
def test_every_value_falls_into_one_bin_and_counting_agrees_with_the_reference(
    training: list[float], live: list[float]
) -> None:
    reference = numeric(training)
    bins = [name for feature, name in reference.series if feature == "x"]
    assert len(set(bins)) == len(bins) <= 11
    assert reference.counts[: len(bins)].sum() == len(training)
    again = reference.count(np.asarray(training, dtype=np.float32)[:, None], np.zeros(len(training)))
    np.testing.assert_array_equal(again[: len(bins)], reference.counts[: len(bins)])
    counted = reference.count(np.asarray(live, dtype=np.float32)[:, None], np.zeros(len(live)))
    assert counted[: len(bins)].sum() == len(live)


def test_counting_in_one_call_row_by_row_and_over_the_chunk_size_agree(world) -> None:  # type: ignore[no-untyped-def]
    matrix = np.tile(world.encoded.matrix, (3, 1))
    whole = Encoded(matrix, {})
    predictions = world.bundle.predict_encoded(matrix)
    reference = world.bundle.reference
    np.testing.assert_array_equal(reference.count(whole, predictions), 3 * reference.counts)
    rows = sum(reference.count(matrix[row : row + 1], predictions[row : row + 1]) for row in range(200))
    np.testing.assert_array_equal(rows, reference.count(matrix[:200], predictions[:200]))


def test_psi_is_the_formula_of_the_rules() -> None:
    reference = numeric(np.arange(1, 101))
    live = np.zeros(len(reference.counts), dtype=int)
    live[:3] = (20, 30, 50)
    expected = 0.0
    total_live, total = sum(live[:11] + 0.5), sum(reference.counts[:11] + 0.5)
    for counted, trained in zip(live[:11], reference.counts[:11], strict=True):
        share, was = (counted + 0.5) / total_live, (trained + 0.5) / total
        expected += (share - was) * math.log(share / was)
    assert reference.psi(live)["x"] == pytest.approx(expected)
    assert sum(reference.shares[:11]) == pytest.approx(1)


def test_without_drift_psi_stays_at_sampling_noise_and_with_drift_it_leaves_it() -> None:
    generator = np.random.default_rng(3)
    reference = numeric(generator.normal(size=20_000))
    still = [
        reference.psi(reference.count(generator.normal(size=(1000, 1)).astype(np.float32), np.zeros(1000)))["x"]
        for _ in range(50)
    ]
    assert np.mean(still) == pytest.approx(10 * (1 / 1000 + 1 / 20_000), rel=0.35)  # about (bins - 1)(1/n + 1/m)
    assert max(still) < 0.05
    moved = reference.count(generator.normal(1, 1, size=(1000, 1)).astype(np.float32), np.zeros(1000))
    assert reference.psi(moved)["x"] > 0.25


def test_the_reference_survives_json(world) -> None:  # type: ignore[no-untyped-def]
    reference = world.bundle.reference
    again = Reference.from_json(reference.to_json())
    assert again == reference
    assert again.series == reference.series
    assert {row["feature"] for row in describe(again)} == {*world.schema.feature_names, "prediction"}


def test_the_reference_of_an_older_release_has_no_attribution(world) -> None:  # type: ignore[no-untyped-def]
    older = world.bundle.reference.model_dump(mode="json", exclude={"attribution"})
    assert Reference.from_json(json.dumps(older)).attribution is None


def test_the_attribution_survives_json(world) -> None:  # type: ignore[no-untyped-def]
    attribution = Attribution.of(("a", "b"), np.array([[1.0, -3.0], [-2.0, 1e-7]]))
    reference = world.bundle.reference.model_copy(update={"attribution": attribution})
    assert Reference.from_json(reference.to_json()) == reference
