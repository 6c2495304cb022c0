"""Every figure is the one that scikit-learn gives, and the bootstrap's interval covers as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial_steps.evaluation import bootstrap
from perennial_steps.evaluation.bootstrap import paired_bootstrap
from perennial_steps.evaluation.metrics import METRICS, average_precision, gain_of, measure, roc_auc
from perennial_steps.training.plots import calibration_curve, roc_curve

CLASSIFIER = {
    "roc_auc": reference.roc_auc_score,
    "average_precision": reference.average_precision_score,
    "log_loss": lambda label, score: reference.log_loss(label, score, labels=[0, 1]),
    "brier": reference.brier_score_loss,
}
REGRESSOR = {
    "rmse": reference.root_mean_squared_error,
    "mae": reference.mean_absolute_error,
    "r2": reference.r2_score,
}

labelled_scores = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.01, 0.2, 0.5, 0.5001, 0.99]) | st.floats(0.001, 0.999)),
    min_size=2,
    max_size=60,
).filter(lambda rows: 0 < sum(label for label, _ in rows) < len(rows))


@given(labelled_scores)
def test_classifier_metrics_are_scikit_learns_with_ties_too(rows: list[tuple[bool, float]]) -> None:
    label, score = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    for name, other in CLASSIFIER.items():
        assert METRICS[name](label, score) == pytest.approx(other(label, score), abs=1e-9), name
    false, true = roc_curve(label, score)
    assert np.trapezoid(true, false) == pytest.approx(roc_auc(label, score))


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=50))
def test_regressor_metrics_are_scikit_learns(rows: list[tuple[float, float]]) -> None:
    label, score = np.array(rows).T
    for name, other in REGRESSOR.items():
        if name == "r2" and np.ptp(label) < 1e-6:
            continue
        assert METRICS[name](label, score) == pytest.approx(other(label, score), rel=1e-6, abs=1e-9), name


def test_what_cannot_be_measured_is_nan() -> None:
    one = np.ones(3)
    assert np.isnan(roc_auc(one, one))
    assert np.isnan(average_precision(np.zeros(3), one))
    assert np.isnan(METRICS["r2"](one, np.zeros(3)))


def test_certain_and_wrong_predictions_have_a_finite_loss() -> None:
    assert np.isfinite(METRICS["log_loss"](np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def test_gain_is_positive_when_better_whichever_way_the_metric_runs() -> None:
    assert gain_of("roc_auc", 0.8, 0.7) == pytest.approx(0.1)
    assert gain_of("log_loss", 0.5, 0.7) == pytest.approx(0.2)


def test_each_kind_of_model_has_its_metrics() -> None:
    label, score = np.array([0.0, 1.0]), np.array([0.2, 0.7])
    assert set(measure("xgboost.classifier", label, score)) == set(CLASSIFIER)
    assert set(measure("xgboost.regressor", label, score)) == set(REGRESSOR)


def simulate(rows: int, noise: tuple[float, float], generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Label and the scores of two models that see the truth through independent noise."""
    truth = generator.normal(size=rows)
    label = (generator.random(rows) < 1 / (1 + np.exp(-2 * truth))).astype(float)
    scores = [1 / (1 + np.exp(-(truth + level * generator.normal(size=rows)))) for level in noise]
    return label, scores[0], scores[1]


@pytest.mark.parametrize("metric", list(METRICS))
def test_weighted_metrics_are_those_of_the_drawn_rows(metric: str) -> None:
    generator = np.random.default_rng(5)
    label, score, _ = simulate(300, (1.0, 1.0), generator)
    score = np.round(score, 2)  # ties
    weights = np.stack([np.bincount(generator.integers(0, 300, 300), minlength=300) for _ in range(20)]).astype(float)
    found = bootstrap._weighted(metric, label, score)(weights)
    for figure, drawn in zip(found, weights.astype(int), strict=True):
        rows = np.repeat(np.arange(300), drawn)
        assert figure == pytest.approx(METRICS[metric](label[rows], score[rows]), abs=1e-9)


@pytest.mark.parametrize("metric", list(METRICS))
def test_a_clear_gain_is_found_in_every_metric_and_a_loss_is_none(metric: str) -> None:
    label, good, bad = simulate(3000, (0.2, 2.0), np.random.default_rng(1))
    gain = paired_bootstrap(metric, label, good, bad, confidence=0.95)
    assert 0 < gain.low < gain.gain < gain.high
    assert paired_bootstrap(metric, label, bad, good, confidence=0.95).high < 0


def test_the_same_model_gains_exactly_nothing() -> None:
    label, score, _ = simulate(500, (1.0, 1.0), np.random.default_rng(1))
    gain = paired_bootstrap("roc_auc", label, score, score, confidence=0.95)
    assert (gain.low, gain.gain, gain.high) == (0, 0, 0)


def test_the_interval_is_the_same_whenever_it_is_asked_for_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    label, one, other = simulate(800, (1.0, 1.2), np.random.default_rng(2))
    first = paired_bootstrap("roc_auc", label, one, other, confidence=0.95)
    monkeypatch.setattr(bootstrap, "BATCH_VALUES", 5000)
    assert paired_bootstrap("roc_auc", label, one, other, confidence=0.95) == first


def test_more_rows_than_are_needed_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MAX_ROWS", 1000)
    label, one, other = simulate(5000, (0.5, 1.5), np.random.default_rng(2))
    gain = paired_bootstrap("roc_auc", label, one, other, confidence=0.95)
    assert gain.rows == 1000
    assert gain.low > 0


def test_one_class_has_no_interval() -> None:
    one = np.ones(50)
    gain = paired_bootstrap("roc_auc", one, one, one, confidence=0.95)
    assert np.isnan(gain.low)
    assert gain.resamples == 0


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss"])
def test_the_lower_end_lies_above_the_true_gain_as_seldom_as_it_promises(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models of equal strength: a one-sided 90% interval may lie above 0 in 10% of worlds."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    generator, worlds = np.random.default_rng(11), 400
    above = sum(
        paired_bootstrap(metric, *simulate(300, (1.0, 1.0), generator), confidence=0.9, seed=world).low > 0
        for world in range(worlds)
    )
    assert above / worlds == pytest.approx(0.10, abs=0.045)  # three standard errors of 400 draws


@settings(max_examples=30)
@given(labelled_scores)
def test_calibration_bins_hold_every_row(rows: list[tuple[bool, float]]) -> None:
    label, score = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    predicted, observed = calibration_curve(label, score)
    assert len(predicted) == min(10, len(rows))
    assert ((observed >= 0) & (observed <= 1)).all()
    assert (np.diff(predicted) >= -1e-12).all()
