"""How much each feature moves a model's answers, and how far a sample of rows may differ from that by chance.

A feature's attribution is the mean of its absolute TreeSHAP contribution (Lundberg et al., "From local explanations to global understanding
with explainable AI for trees", 2020); its share is its part of the sum over all features. Live shares are compared with those of rows that
the model was not fitted to, by total variation: half the sum of the absolute differences, the part of the attribution that has gone to
other features, from 0 to 1.

Shares of a sample vary. For many rows they are normal around the true ones, with the covariance of the rows' influence on them (the delta
method; van der Vaart, "Asymptotic Statistics", 1998, chapters 3 and 20). How far their total variation goes then is found by drawing from
that distribution once, in training; it shrinks with the square root of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perennial_spec.base import Model

QUANTILE = 0.9995
"""The shift of rows that are like the reference's stays within the noise with this probability."""
_DRAWS = 20_000
_CHUNK = 1000
_SEED = 0
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Attribution(Model):
    """The attribution of rows that the model was not fitted to."""

    features: tuple[str, ...]
    """In the order of the matrix."""
    shares: tuple[float, ...]
    """Each feature's part of the attribution; they add up to 1."""
    scale: float
    """Mean over the rows of the sum of |contribution|, in the unit of the margin."""
    noise: float
    """The shift between n and m rows of one kind is below noise * sqrt(1/n + 1/m) with probability `QUANTILE`."""
    rows: int

    @classmethod
    def of(cls, features: Sequence[str], contributions: Floats) -> Attribution | None:
        """The attribution of these rows; None where no feature moves any answer.

        Args:
            features: names, in the order of the columns.
            contributions: float[rows, features], of TreeSHAP, without the bias.
        """
        absolute = np.abs(contributions, dtype=np.float64)
        scale = float(absolute.sum(axis=1).mean()) if len(absolute) else 0.0
        if not (np.isfinite(scale) and scale > 0):
            return None
        shares = absolute.mean(axis=0) / scale
        return cls(
            features=tuple(features),
            shares=tuple(map(float, shares)),
            scale=scale,
            noise=_noise(_influence(absolute, shares, scale)),
            rows=len(absolute),
        )

    def shift(self, totals: Sequence[float] | Floats) -> float:
        """Total variation between these shares and those of live rows; Prometheus computes the same.

        Args:
            totals: sum of |contribution| by feature, in any unit.
        """
        live = np.asarray(totals, dtype=np.float64)
        return float(np.abs(live / live.sum() - np.array(self.shares)).sum() / 2)

    def noise_at(self, rows: int) -> float:
        """What the shift of so many rows stays below by chance."""
        return float(self.noise * np.sqrt(1 / rows + 1 / self.rows))


def _influence(absolute: Floats, shares: Floats, scale: float) -> Floats:
    """float64[rows, features]: what each row does to the shares; of mean 0."""
    found: Floats = (absolute - absolute.sum(axis=1, keepdims=True) * shares) / scale
    return found


def _noise(influence: Floats) -> float:
    """The quantile of half the sum of |z|, for z normal with the covariance of `influence`."""
    values, vectors = np.linalg.eigh(influence.T @ influence / len(influence))
    root = vectors * np.sqrt(np.clip(values, 0, None))
    draw = np.random.default_rng(_SEED)
    found = [
        np.abs(draw.standard_normal((_CHUNK, len(root))) @ root.T).sum(axis=1) / 2 for _ in range(_DRAWS // _CHUNK)
    ]
    return float(np.quantile(np.concatenate(found), QUANTILE))
