"""Forests that answer in microseconds, without XGBoost in the process.

flat = flatten(json.loads(booster.save_raw("json")))  # where XGBoost is
flat.save(folder)
forest = Forest(Flat.load(folder))                    # where it is not
forest.predict(matrix)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from perennial_native import _forest
from perennial_native.flat import Array, Flat
from perennial_native.flatten import flatten
from perennial_native.trees import Unsupported

__all__ = ["Flat", "Forest", "Unsupported", "agrees", "flatten"]

TOLERANCE = 1e-5
"""Relative to the prediction, or to 1 where that is smaller.

Forest and XGBoost add the same float32 values in the same order, so most predictions are equal to the last bit. Dart is added up in another
order there, and other builds of either may contract or reorder: some hundred additions of float32 are then off by some hundred
times 6e-8 of the largest sum on the way. A wrong path in one tree shows as the difference of two leaves, which is far more.
"""


class Predicts(Protocol):
    """What `agrees` asks of XGBoost's booster."""

    def inplace_predict(self, data: Any, /) -> Any: ...


class Forest:
    """A flat forest, ready to answer. Any number of threads may ask it at once."""

    __slots__ = ("features", "outputs", "predict")

    features: int
    """Columns of the matrix, in the order of training."""
    outputs: int
    """Values per row."""
    predict: Callable[[Any], np.ndarray[Any, np.dtype[np.float64]]]
    """float32[n, features] to float64[n], or float64[n, outputs] where there are several.

    NaN is missing; anything that is not float32 and in one piece is copied first. From 256 rows on, other threads run meanwhile.
    Raises ValueError where the matrix has another shape.
    """

    def __init__(self, flat: Flat) -> None:
        """Raises ValueError where the flat forest is damaged."""
        self.features, self.outputs = flat.features, flat.outputs
        self.predict = _forest.Forest(flat.features, flat.outputs, flat.transform, flat.arrays).predict


def agrees(forest: Forest, booster: Predicts, matrix: Array) -> str | None:
    """None where the forest answers the rows as XGBoost does, or their largest disagreement in words.

    float32[n, features]; the booster must not have been told of other missing values than NaN.
    """
    ours, theirs = forest.predict(matrix), np.asarray(booster.inplace_predict(matrix), dtype=np.float64)
    if ours.shape != theirs.shape:
        return f"the forest answers in the shape {ours.shape}, XGBoost in {theirs.shape}"
    with np.errstate(invalid="ignore"):
        off = np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))
    off[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0  # infinities too
    off[np.isnan(off)] = np.inf
    if off.size == 0 or (worst := off.max()) <= TOLERANCE:
        return None
    at = np.unravel_index(np.argmax(off), off.shape)
    where = f"row {at[0]}" + (f", output {at[1]}" if len(at) > 1 else "")
    return (
        f"{where}: the forest answers {ours[at]:.9g}, XGBoost {theirs[at]:.9g}; "
        f"{np.count_nonzero(off > TOLERANCE)} of {off.size} values are off by more than {TOLERANCE:g}, at most {worst:.3g}"
    )
