"""Live quality from scores and labels. Each is None where it is not defined: never a NaN that somebody compares with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ALWAYS = {"xgboost.classifier": ("brier", "log_loss"), "xgboost.regressor": ("rmse", "mae")}
"""Measured beside the metric that the spec names."""


def measured(kind: str, metric: str) -> tuple[str, ...]:
    """The metrics that are exported for a model of `kind` whose spec names `metric`; none for a ranker.

    A ranker is measured on whole lists, and the log of predictions does not know which list a row was in.
    """
    return tuple(dict.fromkeys((metric, *ALWAYS[kind]))) if kind in ALWAYS else ()


def measure(metrics: tuple[str, ...], scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics that are defined on these pairs.

    Args:
        metrics: names from `METRICS_OF`.
        scores: probability of the positive class, or the regressor's value; finite.
        labels: 0 or 1, or the true value; as long as `scores`.
    """
    if len(labels) == 0:
        return {}
    values = {metric: _MEASURES[metric](scores, labels) for metric in metrics}
    return {metric: value for metric, value in values.items() if value is not None}


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Area under the ROC curve as the Mann-Whitney statistic, with mean ranks for ties; None with one class only."""
    import numpy as np

    positive = labels > 0.5
    n_positive = int(np.count_nonzero(positive))
    n_negative = len(labels) - n_positive
    if not n_positive or not n_negative:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_ranks[inverse][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean precision over the steps in recall, one step per distinct score; None without a positive label."""
    import numpy as np

    values, inverse = np.unique(-scores, return_inverse=True)
    positives = np.bincount(inverse, weights=labels > 0.5, minlength=len(values))
    total = positives.sum()
    if not total:
        return None
    precision = np.cumsum(positives) / np.cumsum(np.bincount(inverse, minlength=len(values)))
    return float((precision * positives).sum() / total)


def log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood; probabilities are kept a rounding error away from 0 and 1, as scikit-learn does."""
    import numpy as np

    eps = float(np.finfo(np.float64).eps)
    p = np.clip(scores, eps, 1 - eps)
    return float(-np.mean(np.where(labels > 0.5, np.log(p), np.log1p(-p))))


def brier(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared difference between probability and outcome."""
    return float(((scores - labels) ** 2).mean())


def rmse(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(((scores - labels) ** 2).mean() ** 0.5)


def mae(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(abs(scores - labels).mean())


def r2(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of the labels' variance that the scores explain; None when the labels do not vary."""
    spread = float(((labels - labels.mean()) ** 2).sum())
    return 1 - float(((scores - labels) ** 2).sum()) / spread if spread else None


_MEASURES: dict[str, Callable[[Any, Any], float | None]] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
    "rmse": rmse,
    "mae": mae,
    "r2": r2,
}
