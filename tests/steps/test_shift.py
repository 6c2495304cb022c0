"""How far apart the predictions of two versions are."""

from __future__ import annotations

import numpy as np
import pytest

from perennial_features.reference import Reference
from perennial_features.schema import Feature, FeatureSchema
from perennial_spec import names
from perennial_steps.shift import shift

SCHEMA = FeatureSchema(inputs=(), features=(Feature(name="x", kind="numeric"),))


def counted(trained_on: np.ndarray, live: np.ndarray) -> dict[str, float]:
    """Rows by bin, as the server of a model counts them whose training predictions were `trained_on`."""
    nothing = np.zeros((len(trained_on), 1), dtype=np.float32)
    reference = Reference.of(nothing, SCHEMA, trained_on)
    counts = reference.count(nothing[: len(live)], live).tolist()
    pairs = zip(reference.series, counts, strict=True)
    return {name: float(count) for (feature, name), count in pairs if feature == names.PREDICTION_FEATURE}


def test_bins_of_two_models_tell_the_distance_of_what_they_counted() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.beta(2, 5, 20_000), generator.beta(3, 4, 20_000)
    grid = np.linspace(0, 1, 2001)
    truth = np.max(np.abs([(first <= x).mean() - (second <= x).mean() for x in grid]))
    found = shift(counted(first, first), counted(second, second))
    assert found == pytest.approx(truth, abs=0.02)
    assert truth > 0.2


def test_the_same_predictions_in_other_bins_are_no_shift() -> None:
    generator = np.random.default_rng(4)
    first, second, live = generator.beta(2, 5, 20_000), generator.beta(3, 4, 20_000), generator.beta(2, 4, 20_000)
    found = shift(counted(first, live), counted(second, live))
    assert found is not None
    assert found < 0.02


def test_classes_are_compared_by_their_shares() -> None:
    assert shift({"a": 80, "b": 20}, {"a": 5, "b": 3, "c": 2}) == pytest.approx(0.3)
    assert shift({"a": 8}, {"a": 2}) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"(-inf,0.5]": 3.0, "(0.5,inf)": 3.0}),
        ({"(-inf,0.5]": 0.0, "(0.5,inf)": 0.0}, {"(-inf,0.5]": 3.0, "(0.5,inf)": 3.0}),
        ({"(-inf,0.5]": 1.0, "(0.5,inf)": 1.0}, {"(-inf,0.7]": 3.0, "(0.7,inf)": 3.0}),
    ],
    ids=["nothing", "no rows", "no edge in common"],
)
def test_what_cannot_be_compared_is_not(one: dict[str, float], other: dict[str, float]) -> None:
    assert shift(one, other) is None


def test_rows_without_a_value_count_for_nothing() -> None:
    bins = {"(-inf,0.5]": 1.0, "(0.5,inf)": 3.0}
    assert shift(bins | {"missing": 50.0}, {"(-inf,0.5]": 2.0, "(0.5,inf)": 2.0}) == 0.25
