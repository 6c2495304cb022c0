"""Metrics of classifiers and regressors; those of rankers are in `ranking`.

In numpy, and not scikit-learn's: importing those takes 2 s of CPU in a step that works for one, and the paired bootstrap needs the
rank-based formulas for a thousand weightings at once, which scikit-learn does not offer. Tests compare every figure with scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from perennial_spec.model import LOWER_IS_BETTER, METRICS_OF, ModelKind

Floats = np.ndarray[Any, np.dtype[np.float64]]
Groups = np.ndarray[Any, np.dtype[np.int64]]
"""int64[rows]: the number of the list that a row belongs to; rows of a list lie together."""

_SMALLEST = float(np.finfo(np.float32).eps)
"""Scores are float32: a probability nearer to 0 or 1 cannot be told from it."""


def roc_auc(label: Floats, score: Floats) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties counted half (Mann-Whitney U). NaN for one class."""
    positive, negative = score[label == 1], np.sort(score[label == 0])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left")
    upto = np.searchsorted(negative, positive, side="right")
    return float((below + upto).sum() / (2.0 * len(positive) * len(negative)))


def average_precision(label: Floats, score: Floats) -> float:
    """Sum over thresholds of (R_k - R_{k-1}) P_k, without interpolation. NaN without positives."""
    order = np.argsort(-score, kind="stable")
    ends = group_ends(score[order])
    hits = np.cumsum(label[order])[ends]
    if not len(hits) or hits[-1] == 0:
        return float("nan")
    return float(np.sum(np.diff(hits, prepend=0.0) * hits / (ends + 1)) / hits[-1])


def log_loss(label: Floats, score: Floats) -> float:
    return float(row_log_loss(label, score).mean())


def brier(label: Floats, score: Floats) -> float:
    """Mean squared difference of probability and outcome (Brier, 1950)."""
    return float(np.mean((score - label) ** 2))


def rmse(label: Floats, score: Floats) -> float:
    return float(np.sqrt(np.mean((score - label) ** 2)))


def mae(label: Floats, score: Floats) -> float:
    return float(np.mean(np.abs(score - label)))


def r2(label: Floats, score: Floats) -> float:
    """Share of the label's variance that the model explains; NaN when the label has none."""
    total = np.sum((label - label.mean()) ** 2)
    return float(1 - np.sum((label - score) ** 2) / total) if total else float("nan")


METRICS: dict[str, Callable[[Floats, Floats], float]] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
    "rmse": rmse,
    "mae": mae,
    "r2": r2,
}


def figure(metric: str, label: Floats, score: Floats, group: Groups | None = None) -> float:
    """One metric by its name; NaN where it is not defined.

    Args:
        group: int64[rows], the lists of a ranker; its metrics need them, and the others do not look at them.
    """
    if metric in METRICS:
        return METRICS[metric](label, score)
    from perennial_steps.evaluation.ranking import mean_over_lists

    if group is None:
        raise ValueError(f"{metric} is a metric of lists")
    return mean_over_lists(metric, label, score, group)


def measure(kind: ModelKind, label: Floats, score: Floats, group: Groups | None = None) -> dict[str, float]:
    """Every metric of a kind of model, by name."""
    return {name: figure(name, label, score, group) for name in METRICS_OF[kind]}


def gain_of(metric: str, challenger: float, champion: float) -> float:
    """How much better the challenger is, in the metric's units; positive is better whichever way the metric runs."""
    return champion - challenger if metric in LOWER_IS_BETTER else challenger - champion


def row_log_loss(label: Floats, score: Floats) -> Floats:
    """float64[rows]: the log loss of each row."""
    clipped = np.clip(score, _SMALLEST, 1 - _SMALLEST)
    found: Floats = -(label * np.log(clipped) + (1 - label) * np.log(1 - clipped))
    return found


def group_ends(ordered: Floats | Groups) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Place of the last of each run of equal values."""
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1) if len(ordered) else np.empty(0, np.int64)
