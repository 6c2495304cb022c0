"""Rows with known answers, which the server asks itself; see `health`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perennial_features.bundle import Bundle
from perennial_features.code import Array

EXAMPLE = "example "
"""Stands before the names of the columns of an example's first row, where other arrays are beside them."""


@dataclass(frozen=True)
class Question:
    """The rows, and how they are answered."""

    columns: dict[str, Array]
    """Typed, as the model takes them."""
    answer: Array
    """float64[rows] or [rows, outputs], or object[rows] of text: of a bundle, the answers of training; of a model in processes, which does
    not say what it answered then, those of its start."""

    @classmethod
    def of(cls, bundle: Bundle) -> Question | None:
        """The rows that were recorded at training; None where there are none."""
        smoke = bundle.smoke
        return cls(bundle.columns(smoke.columns), np.array(smoke.predictions)) if smoke.predictions else None
