"""The route of a pipeline: which model version takes which share of the traffic.

One tag on the registered model holds the whole route, so that it changes atomically. Assignment is sticky: the same key gets the same
version on every replica, and moving weight from champion to challenger moves only the keys that must move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from perennial_spec.base import Model


class Route(Model):
    """Weights by model version.

    The order of `weights` is part of the route: each version owns an interval of [0, 1) in that order, and a key falls into one of them.
    Keep the champion first and the challenger last, and a growing challenger only takes keys from the champion.
    """

    revision: int = Field(default=0, ge=0)
    """Grows by one with each change."""
    weights: dict[str, float] = Field(default_factory=dict)
    shadow: tuple[str, ...] = ()
    """Versions that see the traffic and never answer."""
    changed_by: str = ""
    """The run key or person that made this revision."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if self.weights and (abs(sum(self.weights.values()) - 1) > 1e-9 or min(self.weights.values()) < 0):
            raise ValueError(f"expected weights that are not negative and sum to 1, got {self.weights}")
        return self

    @property
    def live(self) -> tuple[str, ...]:
        """Versions that take traffic."""
        return tuple(version for version, weight in self.weights.items() if weight > 0)

    def intervals(self) -> list[tuple[str, float]]:
        """`(version, upper bound)` in order; a point in [0, 1) belongs to the first version whose bound is above it."""
        bounds, total = [], 0.0
        for version in self.live:
            total += self.weights[version]
            bounds.append((version, total))
        if bounds:
            bounds[-1] = (bounds[-1][0], 1.0)  # sums of floats must not leave a gap below 1
        return bounds

    def version_at(self, point: float) -> str:
        """The version that owns `point` in [0, 1)."""
        return next(version for version, bound in self.intervals() if point < bound)

    def moved_to(self, weights: Mapping[str, float], by: str) -> Route:
        """The next revision with other weights; the same route when nothing would change."""
        if dict(weights) == self.weights and list(weights) == list(self.weights):
            return self
        return Route(revision=self.revision + 1, weights=dict(weights), shadow=self.shadow, changed_by=by)


def point_of(key: str) -> float:
    """Where an entity's key falls in [0, 1): the same on every machine and in every version of Python."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
