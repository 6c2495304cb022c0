"""Rows of the holdout as the model sees them, and XGBoost's answers: what another reading of the same trees is held to.

The server answers from trees that it has flattened itself. A few smoke rows reach few leaves; these rows reach as many as new data does.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from perennial_features.engine import Predictor
from perennial_spec.errors import ModelError

MAX_ROWS = 2000
"""Kept in a bundle: 184 kB with 23 features."""
RTOL, ATOL = 1e-5, 1e-6
"""The same float32 sums in another order, through another exp(): a share of the answer itself, and of the largest answer, because leaves
that cancel out leave the rounding of what they were."""

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Holdout:
    """Encoded rows, and XGBoost's answers to them."""

    matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    """[rows, features], as `encode` makes them."""
    predictions: Floats
    """[rows] or [rows, classes], as `inplace_predict` gave them."""

    @classmethod
    def of(cls, matrix: Floats, predictions: np.ndarray[Any, Any], rows: int = MAX_ROWS) -> Holdout:
        """Up to `rows` of these rows, evenly spread.

        Args:
            matrix: float32[any number, features].
            predictions: what XGBoost answers to them.
        """
        places = spread(len(matrix), rows)
        return cls(matrix[places].astype(np.float32), predictions[places].astype(np.float32))

    def verify(self, model: Predictor) -> None:
        """Raises:
        ModelError: `model` does not answer these rows as XGBoost did, to float precision.
        """
        answers = np.asarray(model.inplace_predict(self.matrix))
        if answers.shape != self.predictions.shape:
            raise _differs(f"answers of shape {answers.shape}, not {self.predictions.shape}")
        largest = float(np.max(np.abs(self.predictions), initial=0.0))
        wrong = ~np.isclose(answers, self.predictions, rtol=RTOL, atol=ATOL * largest, equal_nan=True)
        if wrong.any():
            rows = int(wrong.reshape(len(wrong), -1).any(axis=1).sum())
            worst = float(np.max(np.abs(answers - self.predictions)[wrong]))
            raise _differs(f"other answers to {rows:,} of {len(self.matrix):,} rows, by up to {worst:.3g}")

    def save(self, file: Path) -> None:
        """Write `file`, whose name ends with .npz."""
        np.savez_compressed(file, matrix=self.matrix, predictions=self.predictions)

    @classmethod
    def load(cls, file: Path, features: int) -> Holdout:
        """What `save` wrote.

        Raises:
            ModelError: it is something else, or of a model with another number of features.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = cls(arrays["matrix"], arrays["predictions"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise _unreadable(f"cannot be read: {error}", file) from None
        shape = found.matrix.shape
        if len(shape) != 2 or shape[1] != features or found.matrix.dtype != np.float32:
            raise _unreadable(f"has a {found.matrix.dtype} matrix of shape {shape}, not of {features} features", file)
        if len(found.predictions) != shape[0]:
            raise _unreadable(f"has {len(found.predictions)} answers to {shape[0]} rows", file)
        return found


def spread(total: int, rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Up to `rows` places among `total`, evenly spread, rising."""
    return np.unique(np.linspace(0, total - 1, min(rows, total)).astype(np.int64))


def _differs(what: str) -> ModelError:
    return ModelError(
        f"the trees as they were read give {what}",
        expected=f"XGBoost's answers on the holdout, to {RTOL:g} of their size",
        next="serve this version with XGBoost itself, and report the model: its trees were misread",
    )


def _unreadable(what: str, file: Path) -> ModelError:
    return ModelError(f"{file.name} {what}", where=str(file.parent), next="train again")
