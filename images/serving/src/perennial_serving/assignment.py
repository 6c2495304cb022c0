"""Which version answers which row: sticky by entity, by chance where there is none, or as a bandit chooses; and the testers' override.

A bandit draws a plausible value of every version from what is known of it, and the version with the best draw answers: Thompson
sampling (Thompson 1933; Russo et al., A Tutorial on Thompson Sampling, 2018). So each version gets as many rows as the chance that it is
the best, and what is poorly known is still tried.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from perennial_serving.model import VERSION_HEADER
from perennial_serving.refusals import NotParsed
from perennial_spec.allocation import WHOLE
from perennial_spec.route import MeanArm, RateArm, Route

if TYPE_CHECKING:
    import numpy as np

    from perennial_serving.fleet import Served

    Pair = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

OVERRIDE_HEADER = VERSION_HEADER
"""A version that shall answer all rows of the request, whatever the route says: for testers."""
_POINT_BYTES = 8
_AHEAD = 256


class Assigner:
    """The assignment of one route, made once per route and process. Only one thread may call it.

    Args:
        route: one in which at least one version takes traffic.
        seed: of what is left to chance; None: another one in each process.
    """

    def __init__(self, route: Route, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        intervals = route.intervals()
        self._versions = [version for version, _ in intervals]
        self._bounds = [_as_bytes(bound) for _, bound in intervals[:-1]]
        self._only = route.live[0] if len(route.live) == 1 else None
        self._bandit = Bandit(route, seed) if route.assignment == "bandit" and self._only is None else None

    def assign(self, keys: Sequence[str | None]) -> list[str] | str:
        """The version of each row by its entity's key, the same on every replica; by chance where it is None.

        One version instead of a list: it takes all rows, and the keys were not looked at.
        """
        if self._only is not None:
            return self._only
        if self._bandit is not None:
            return self._bandit.choose(len(keys))
        versions, bounds, noise = self._versions, self._bounds, self._random.randbytes
        return [
            versions[
                bisect_right(
                    bounds,
                    noise(_POINT_BYTES) if key is None else blake2b(key.encode(), digest_size=_POINT_BYTES).digest(),
                )
            ]
            for key in keys
        ]


class Bandit:
    """Thompson sampling between the versions of a route that take traffic.

    What is known stays the same for as long as the route, so that choices can be drawn ahead, many at once.
    """

    def __init__(self, route: Route, seed: int | None = None) -> None:
        import numpy as np

        self._versions = np.array(route.live, dtype=object)
        self._random = np.random.default_rng(seed)
        known = [route.arms.get(version) for version in route.live]
        means = [arm for arm in route.arms.values() if isinstance(arm, MeanArm)]
        self._rates: Pair | None = None if means else _rates(known)
        self._means: Pair | None = _means(known, means) if means else None
        self._drawn: list[str] = []

    def choose(self, count: int) -> list[str]:
        """The versions of `count` rows, each from a draw of its own."""
        if count > len(self._drawn):
            self._drawn += self._draw(max(count, _AHEAD))
        chosen = self._drawn[-count:] if count else []
        del self._drawn[len(self._drawn) - count :]
        return chosen

    def _draw(self, count: int) -> list[str]:
        size = (count, len(self._versions))
        if self._rates is not None:
            draws = self._random.beta(self._rates[0], self._rates[1], size=size)
        else:
            assert self._means is not None
            draws = self._random.normal(self._means[0], self._means[1], size=size)
        chosen: list[str] = self._versions[draws.argmax(axis=1)].tolist()
        return chosen


def overridden(value: str | None, served: Served) -> str | None:
    """The version that a tester's header asks for; None when there is none.

    Raises:
        NotParsed: the header is there, and empty.
        UnknownVersion: it is not loaded; names those that are.
    """
    if value is None:
        return None
    version = value.strip()
    if not version:
        raise NotParsed(
            "is empty", where=f"header {OVERRIDE_HEADER}", expected="a version that is loaded", next="leave it out"
        )
    return served.model(version).version


def _as_bytes(bound: float) -> bytes:
    """The first digest that lies at or above the bound: digests compare with it as `point_of` compares with the bound."""
    return (math.ceil(bound * WHOLE) << 11).to_bytes(_POINT_BYTES)


def _rates(known: Sequence[Any]) -> Pair:
    """Alpha and beta of each version's posterior, from a uniform prior."""
    import numpy as np

    arms = [arm or RateArm() for arm in known]
    return np.array([1 + arm.successes for arm in arms]), np.array([1 + arm.failures for arm in arms])


def _means(known: Sequence[Any], means: Sequence[MeanArm]) -> Pair:
    """Mean and standard error of each version. One without an arm is as if one average reward had come of the widest of the others."""
    import numpy as np

    average = float(np.mean([arm.mean for arm in means]))
    unknown = MeanArm(mean=average, deviation=max(arm.deviation for arm in means), count=1)
    arms = [arm or unknown for arm in known]
    return np.array([arm.mean for arm in arms]), np.array([arm.deviation / math.sqrt(arm.count) for arm in arms])
