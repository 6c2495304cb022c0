"""Quality before there are labels: confidence-based performance estimation (CBPE), as NannyML documents it.

Where probabilities are calibrated, a prediction of 0.8 is right in 8 of 10 cases, whether or not anybody comes to tell. So the expected
value of a metric follows from the probabilities alone. That assumes:

- calibration: scores are first calibrated on the labels that have come (isotonic regression), as far as there are enough of them;
- no concept drift: the same score means the same chance as when those labels came. Inputs may drift, and the estimate follows them; when
  the relation of inputs and outcome changes, the estimate is wrong, and only labels tell.
"""

from __future__ import annotations

import numpy as np

from perennial_controller.quality.columns import Array
from perennial_controller.quality.measures import Pairs, Ties, log_losses

MIN_LABELS = 200
"""With fewer labels, or of one class only, scores are taken as they are."""
_BLOCKS = 1000
"""The calibration is fitted to the means of so many blocks of equal size, at most: a million labels need no more."""


def calibrated(known: Pairs, scores: Array) -> Array:
    """float64[m]: the chance that each of `scores` comes true, by isotonic regression on the labels that are known."""
    if len(known) < MIN_LABELS or known.labels.min() == known.labels.max():
        return np.clip(scores, 0.0, 1.0)
    from sklearn.isotonic import IsotonicRegression

    starts = np.unique(np.linspace(0, len(known), min(len(known), _BLOCKS), endpoint=False).astype(np.int64))
    counts = np.diff(np.append(starts, len(known)))
    means = (np.add.reduceat(values, starts) / counts for values in (known.scores, known.labels))
    curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    found: Array = curve.fit(*means, sample_weight=counts).predict(scores)
    return found


def estimate(known: Pairs, scores: Array) -> dict[str, float]:
    """The expected ROC AUC, log loss and Brier score of a classifier's predictions without labels.

    Args:
        known: predictions with labels, of the same model.
        scores: float64[m], rising: of those without.

    Returns:
        What is defined; nothing when `scores` is empty.
    """
    if not len(scores):
        return {}
    chance = calibrated(known, scores)
    found = {
        "roc_auc": Ties.of(scores, chance).auc(),
        "log_loss": float(log_losses(scores, chance).mean()),
        "brier": float((chance * (1 - scores) ** 2 + (1 - chance) * scores**2).mean()),
    }
    return {metric: value for metric, value in found.items() if value is not None}


def confidence(scores: Array) -> float:
    """Mean of max(p, 1 - p): how sure a classifier is of its answers."""
    return float(np.maximum(scores, 1 - scores).mean())
