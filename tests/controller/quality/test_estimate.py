"""Estimated quality is the expectation over what may come true; and near the truth, where its assumptions hold."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from perennial_controller.quality.estimate import MIN_LABELS, calibrated, confidence, estimate
from perennial_controller.quality.measures import Pairs, measure

METRICS = ("roc_auc", "log_loss", "brier")
NOTHING = Pairs.of(np.empty(0), np.empty(0))


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.05, 0.2, 0.5, 0.8, 0.9]), min_size=1, max_size=5))
def test_means_are_the_expectation_over_all_that_may_come_true(chances: list[float]) -> None:
    scores = np.sort(np.array(chances))
    found = estimate(NOTHING, scores)
    brier = log_loss = 0.0
    for outcome in product([0.0, 1.0], repeat=len(scores)):
        y = np.array(outcome)
        weight = float(np.where(y == 1, scores, 1 - scores).prod())
        brier += weight * float(np.mean((scores - y) ** 2))
        log_loss += weight * sk.log_loss(y, scores, labels=[0, 1])
    assert found["brier"] == pytest.approx(brier)
    assert found["log_loss"] == pytest.approx(log_loss)
    pairs = [(p * (1 - q), (p > q) + (p == q) / 2) for p in chances for q in chances]
    weights = sum(weight for weight, _ in pairs)
    assert found["roc_auc"] == pytest.approx(sum(weight * won for weight, won in pairs) / weights)


def outcomes(rng: np.random.Generator, chances: np.ndarray, scores: np.ndarray) -> Pairs:
    return Pairs.of(scores, (rng.random(len(chances)) < chances).astype(float))


@pytest.mark.parametrize("power", [1.0, 3.0], ids=["calibrated", "sure of itself without reason"])
def test_it_is_near_the_truth_when_inputs_move_and_the_relation_holds(power: float) -> None:
    rng = np.random.default_rng(0)
    before, after = rng.beta(2, 2, 20_000), rng.beta(4, 2, 20_000)  # other inputs: other chances
    model = lambda chances: chances**power / (chances**power + (1 - chances) ** power)  # noqa: E731
    known, coming = outcomes(rng, before, model(before)), outcomes(rng, after, model(after))
    found = estimate(known, coming.scores)
    true = {metric: figure.value for metric, figure in measure(METRICS, coming).items()}
    assert found == pytest.approx(true, abs=0.02)
    if power > 1:
        uncalibrated = estimate(NOTHING, coming.scores)
        assert abs(uncalibrated["log_loss"] - true["log_loss"]) > 5 * abs(found["log_loss"] - true["log_loss"])


def test_concept_drift_is_not_seen() -> None:
    """What the documentation says of it."""
    rng = np.random.default_rng(0)
    scores = rng.beta(2, 2, 20_000)
    known, turned = outcomes(rng, scores, scores), outcomes(rng, 1 - scores, scores)
    assert measure(("roc_auc",), turned)["roc_auc"].value < 0.5 < 0.7 < estimate(known, turned.scores)["roc_auc"]


@pytest.mark.parametrize("labels", [np.arange(MIN_LABELS - 1) % 2, np.zeros(1000)], ids=["few", "one class"])
def test_without_labels_to_calibrate_by_scores_are_taken_as_they_are(labels: np.ndarray) -> None:
    scores = np.linspace(0, 1, len(labels))
    assert calibrated(Pairs(scores, labels.astype(float)), np.array([0.1, 0.7])).tolist() == [0.1, 0.7]


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(MIN_LABELS, 5000))
def test_calibration_never_turns_scores_around(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    known = outcomes(rng, rng.random(count), np.round(rng.random(count), 2))
    found = calibrated(known, np.linspace(-0.1, 1.1, 50))
    assert (np.diff(found) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_nothing_is_estimated_of_nothing() -> None:
    assert estimate(NOTHING, np.empty(0)) == {}


def test_confidence_is_how_far_answers_are_from_half() -> None:
    assert confidence(np.array([0.0, 0.5, 0.7, 0.2])) == pytest.approx((1 + 0.5 + 0.7 + 0.8) / 4)
