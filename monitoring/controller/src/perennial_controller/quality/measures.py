"""Live quality from scores and labels, with intervals.

A metric is left out where it is not defined: never a NaN that somebody compares with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perennial_controller.quality.columns import Array

ALWAYS = {
    "xgboost.classifier": ("roc_auc", "log_loss", "brier", "calibration_error"),
    "xgboost.regressor": ("rmse", "mae"),
}
"""Measured beside the metric that the spec names."""
BINS = 15
"""Of equal width, for the calibration error."""
_Z = 1.959963984540054
"""Of the normal distribution, 95% lie within so many standard deviations."""


@dataclass(frozen=True)
class Figure:
    """A metric, and the ends of its 95% interval where one is known."""

    value: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Pairs:
    """Predictions and what came true.

    Args:
        scores: float64[n], rising: probability of the positive class, or the regressor's value; finite.
        labels: float64[n]: 0 or 1, or the true value.
    """

    scores: Array
    labels: Array

    @classmethod
    def of(cls, scores: Array, labels: Array) -> Pairs:
        """From pairs in any order."""
        order = np.argsort(scores, kind="stable")
        return cls(scores[order], labels[order])

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def ties(self) -> Ties:
        return Ties.of(self.scores, self.labels)


@dataclass(frozen=True)
class Ties:
    """Pairs of equal score together, by rising score: all that a rank knows."""

    positive: Array
    """float64[groups]: how many are positive; for an estimate, how many are expected to be."""
    negative: Array

    @classmethod
    def of(cls, scores: Array, positive: Array) -> Ties:
        """Args: rising scores; 0, 1, or the probability of 1."""
        if not len(scores):
            return cls(np.empty(0), np.empty(0))
        starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
        counts = np.diff(np.append(starts, len(scores)))
        ones = np.add.reduceat(positive, starts)
        return cls(ones, counts - ones)

    @cached_property
    def above(self) -> Array:
        """float64[groups]: negatives that a positive of the group is above; of its own group, half of them."""
        found: Array = np.cumsum(self.negative) - self.negative / 2
        return found

    @cached_property
    def below(self) -> Array:
        """float64[groups]: positives that a negative of the group is below; of its own group, half of them."""
        found: Array = self.positive.sum() - np.cumsum(self.positive) + self.positive / 2
        return found

    def auc(self) -> float | None:
        """Area under the ROC curve as the Mann-Whitney statistic, ties counting half; None with one class only."""
        pairs = float(self.positive.sum() * self.negative.sum())
        return float((self.positive * self.above).sum()) / pairs if pairs else None


def measured(kind: str, metric: str) -> tuple[str, ...]:
    """The metrics that are exported for a model of `kind` whose spec names `metric`; none for a ranker.

    A ranker is measured on whole lists, and the log of predictions does not know which list a row was in.
    """
    return tuple(dict.fromkeys((metric, *ALWAYS[kind]))) if kind in ALWAYS else ()


def measure(metrics: tuple[str, ...], pairs: Pairs) -> dict[str, Figure]:
    """The metrics that are defined on these pairs."""
    if not len(pairs):
        return {}
    found = {metric: _MEASURES[metric](pairs) for metric in metrics}
    return {metric: figure for metric, figure in found.items() if figure is not None}


def roc_auc(pairs: Pairs) -> Figure | None:
    """Area under the ROC curve.

    The interval is DeLong's (DeLong, DeLong and Clarke-Pearson, 1988, Biometrics 44), with the placements read off the ranks as in Sun and
    Xu (2014, IEEE Signal Processing Letters 21). With one positive or one negative label it is 0 to 1: nothing is known.
    """
    ties = pairs.ties
    value = ties.auc()
    if value is None:
        return None
    positives, negatives = float(ties.positive.sum()), float(ties.negative.sum())
    if positives < 2 or negatives < 2:
        return Figure(value, 0.0, 1.0)
    of_positives = (ties.positive * (ties.above / negatives - value) ** 2).sum() / (positives - 1)
    of_negatives = (ties.negative * (ties.below / positives - value) ** 2).sum() / (negatives - 1)
    half = _Z * float(of_positives / positives + of_negatives / negatives) ** 0.5
    return Figure(value, max(value - half, 0.0), min(value + half, 1.0))


def average_precision(pairs: Pairs) -> Figure | None:
    """Mean precision over the steps in recall, one step per distinct score; None without a positive label."""
    positives = pairs.ties.positive[::-1]
    total = positives.sum()
    if not total:
        return None
    precision = np.cumsum(positives) / np.cumsum(positives + pairs.ties.negative[::-1])
    return Figure(float((precision * positives).sum() / total))


def log_losses(scores: Array, positive: Array) -> Array:
    """Negative log-likelihood of each; probabilities are kept a rounding error away from 0 and 1, as scikit-learn does.

    Args:
        positive: 0, 1, or the probability of 1.
    """
    eps = float(np.finfo(np.float64).eps)
    p = np.clip(scores, eps, 1 - eps)
    found: Array = -(positive * np.log(p) + (1 - positive) * np.log1p(-p))
    return found


def log_loss(pairs: Pairs) -> Figure:
    """Mean negative log-likelihood."""
    return _mean(log_losses(pairs.scores, pairs.labels))


def brier(pairs: Pairs) -> Figure:
    """Mean squared difference between probability and outcome."""
    return _mean((pairs.scores - pairs.labels) ** 2)


def calibration_error(pairs: Pairs) -> Figure:
    """Expected calibration error: the mean, over all predictions, of |share that came true - mean probability| of their bin.

    15 bins of equal width, each with its upper end (Guo, Pleiss, Sun and Weinberger, 2017, "On Calibration of Modern Neural Networks",
    equation 3), of the probability of the positive class. It is never 0 on a finite sample, so that it has no interval.
    """
    ends = np.searchsorted(pairs.scores, np.arange(1, BINS) / BINS, side="right")
    apart = zip(np.split(pairs.scores, ends), np.split(pairs.labels, ends), strict=True)
    return Figure(float(sum(abs((labels - scores).sum()) for scores, labels in apart)) / len(pairs))


def rmse(pairs: Pairs) -> Figure:
    """Root of the mean squared error; its interval is the root of that of the mean."""
    mean = brier(pairs)
    lower, upper = (None if end is None else end**0.5 for end in (mean.lower, mean.upper))
    return Figure(mean.value**0.5, lower, upper)


def mae(pairs: Pairs) -> Figure:
    return _mean(abs(pairs.scores - pairs.labels))


def r2(pairs: Pairs) -> Figure | None:
    """Share of the labels' variance that the scores explain; None when the labels do not vary."""
    labels = pairs.labels
    spread = float(((labels - labels.mean()) ** 2).sum())
    return Figure(1 - float(((pairs.scores - labels) ** 2).sum()) / spread) if spread else None


def _mean(values: Array) -> Figure:
    """A mean, with the interval of the normal distribution that it tends to; of one value there is none."""
    value = float(values.mean())
    if len(values) < 2:
        return Figure(value)
    half = _Z * float(values.std(ddof=1)) / len(values) ** 0.5
    return Figure(value, max(value - half, 0.0), value + half)  # all of these are means of what is never negative


_MEASURES: dict[str, Callable[[Pairs], Figure | None]] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
    "calibration_error": calibration_error,
    "rmse": rmse,
    "mae": mae,
    "r2": r2,
}
