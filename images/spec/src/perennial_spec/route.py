"""The route of a pipeline: which model version takes which share of the traffic.

One tag on the registered model holds the whole route, so that it changes atomically. Assignment is sticky: the same key gets the same
version on every replica, and a change of the weights moves exactly as many keys as it must, for any number of versions and any change.
A bandit's route gives each row to the version that looks best in a draw from what is known of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from perennial_spec.allocation import Pieces, in_order, moved, shares
from perennial_spec.base import Model
from perennial_spec.units import format_share

_LATER_WORDS: dict[str, object] = {"pieces": (), "assignment": "sticky", "arms": {}}
"""What the first servers did not know, and its default."""
_CLOSE = 1e-9


class RateArm(Model):
    """What a bandit knows of a version whose rewards lie in [0, 1]: its rate is drawn from Beta(1 + successes, 1 + failures)."""

    successes: float = Field(default=0.0, ge=0, le=1e12)
    failures: float = Field(default=0.0, ge=0, le=1e12)


class MeanArm(Model):
    """What a bandit knows of a version whose rewards are any numbers: its mean is drawn from Normal(mean, deviation / sqrt(count))."""

    mean: float = Field(ge=-1e100, le=1e100)
    deviation: float = Field(gt=0, le=1e100)
    """Standard deviation of single rewards, in the rewards' unit."""
    count: float = Field(ge=1, le=1e12)


Arms = dict[str, RateArm] | dict[str, MeanArm]


class Route(Model):
    """Weights by model version, and who owns which part of [0, 1).

    Each key has a point in [0, 1), and belongs to the version that owns it. Without `pieces`, each version owns one interval in the order
    of `weights`: so it is with every route that was written by hand. `moved_to` keeps the pieces where the smallest move needs them.
    """

    revision: int = Field(default=0, ge=0)
    """Grows by one with each change."""
    weights: dict[str, float] = Field(default_factory=dict)
    shadow: tuple[str, ...] = ()
    """Versions that see the traffic and never answer."""
    changed_by: str = ""
    """The run key or person that made this revision."""
    pieces: Pieces = ()
    """`[version, upper bound]` in order, the last bound 1; empty: one piece per version, in the order of `weights`."""
    assignment: Literal["sticky", "bandit"] = "sticky"
    """`sticky`: by the request's entity and the weights. `bandit`: by a draw for each row, between the versions whose weight is not 0."""
    arms: Arms = Field(default_factory=dict)
    """A bandit's knowledge by version: all rates or all means. A version without an arm is one of which nothing is known yet."""

    @field_validator("arms", mode="wrap")
    @classmethod
    def _of_one_kind(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(
                'expected arms by version, all {"successes": ..., "failures": ...} with numbers of at least 0, or all '
                '{"mean": ..., "deviation": above 0, "count": at least 1}'
            ) from None

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        values = self.weights.values()
        if self.weights and not (abs(sum(values) - 1) <= _CLOSE and min(values) >= 0):
            raise ValueError(f"expected weights that are not negative and sum to 1, got {self.weights}")
        return self

    @model_validator(mode="after")
    def _pieces_follow_the_weights(self) -> Self:
        if not self.pieces:
            return self
        bounds = [0.0, *(bound for _, bound in self.pieces)]
        if bounds[-1] != 1 or not all(below < bound for below, bound in pairwise(bounds)):
            raise ValueError(
                "expected pieces whose upper bounds rise to 1; without pieces, they follow from the weights"
            )
        owned = shares(self.pieces)
        for version in {**self.weights, **owned}:
            share, weight = owned.get(version, 0.0), self.weights.get(version, 0.0)
            if abs(share - weight) > _CLOSE:
                raise ValueError(
                    f"the pieces give version {version} {share:.9g} of the traffic, and its weight is {weight:.9g}; "
                    "take the pieces out, then they follow from the weights"
                )
        return self

    @model_validator(mode="after")
    def _arms_are_of_the_route(self) -> Self:
        if self.arms and self.assignment != "bandit":
            raise ValueError('expected arms only with assignment "bandit"')
        if strange := [version for version in self.arms if version not in self.weights]:
            raise ValueError(f"expected arms of the versions in weights, got one of {strange[0]}")
        return self

    @model_serializer(mode="wrap")
    def _brief(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A route that does not need the later words does without them: then servers that do not know them still follow it."""
        values: dict[str, Any] = handler(self)
        unused = {name for name, default in _LATER_WORDS.items() if getattr(self, name) == default}
        return {name: value for name, value in values.items() if name not in unused}

    @property
    def live(self) -> tuple[str, ...]:
        """Versions that take traffic."""
        return tuple(version for version, weight in self.weights.items() if weight > 0)

    def intervals(self) -> list[tuple[str, float]]:
        """`(version, upper bound)` in order; a point in [0, 1) belongs to the first piece whose bound is above it."""
        return list(self.pieces or in_order(self.weights))

    def version_at(self, point: float) -> str:
        """The version that owns `point` in [0, 1)."""
        return next(version for version, bound in self.intervals() if point < bound)

    def moved_to(
        self, weights: Mapping[str, float], by: str, arms: Arms | None = None, leaving: Collection[str] = ()
    ) -> Route:
        """The next revision with other weights; the same route when nothing would change.

        A version with a weight is no shadow any longer.

        Of the keys, exactly the share moves that must: half the sum of the differences between the weights.

        Args:
            weights: the new ones, all of them; a version that is left out leaves the route.
            by: who changes it.
            arms: what a bandit knows; None: the weights alone decide, and a bandit ends.
            leaving: versions that are to be no shadows, either.
        """
        shadow = tuple(version for version in self.shadow if version not in weights and version not in leaving)
        assignment = "sticky" if arms is None else "bandit"
        same = list(weights.items()) == list(self.weights.items()) and assignment == self.assignment
        if same and (arms or {}) == self.arms and shadow == self.shadow:
            return self
        pieces = moved(tuple(self.intervals()), weights) if weights else ()
        pieces = () if pieces == in_order(weights) else pieces
        changes = {"weights": dict(weights), "pieces": pieces, "assignment": assignment, "arms": arms or {}}
        return self._next(by, **changes, shadow=shadow)

    def shadowed_by(self, version: str, by: str) -> Route:
        """The next revision, in which a version sees the traffic and never answers; the same route when it does so already."""
        if version in self.shadow:
            return self
        return self._next(by, shadow=(*self.shadow, version))

    def with_arms(self, arms: Arms, by: str) -> Route:
        """The next revision as a bandit that knows `arms`; the same route when nothing would change."""
        if self.assignment == "bandit" and arms == self.arms:
            return self
        return self._next(by, assignment="bandit", arms=arms)

    def _next(self, by: str, **changes: Any) -> Route:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Route(**{**fields, **changes, "revision": self.revision + 1, "changed_by": by})


def point_of(key: str) -> float:
    """Where an entity's key falls in [0, 1): the same on every machine and in every version of Python.

    The first 53 of the 64 bits of BLAKE2b: as many as a float holds exactly.
    """
    return (int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) >> 11) / 2**53


def split(route: Route) -> str:
    """`2: 90%, 3: 10%`"""
    return ", ".join(f"{version}: {format_share(weight)}" for version, weight in route.weights.items()) or "nobody"
