"""How often a server looks at the registry: often enough to follow, and seldom enough for a hundred servers."""

from __future__ import annotations

import random

from perennial_serving.settings import Settings

_SHARE = 10
"""The wait is at least so many times as long as the answer took: a registry that gets slow is asked less."""
_MOST_DOUBLINGS = 20


class Pace:
    """The waits between looks, in seconds.

    Usually `poll_seconds`, and up to `poll_jitter` of it more, so that servers that were started together do not ask in step. After
    failures anything between that and a bound that doubles with each, so that a registry that comes back is not run over.
    """

    def __init__(self, settings: Settings) -> None:
        self._usual, self._jitter = settings.poll_seconds, settings.poll_jitter
        self._most = max(settings.poll_max_seconds, self._usual)
        self._failures = 0
        self._random = random.Random()  # noqa: S311 (no secret)

    def answered(self, took: float) -> float:
        """The wait after an answer that took so many seconds."""
        self._failures = 0
        return max(self.spread(self._usual), min(_SHARE * took, self._most))

    def failed(self) -> float:
        """The wait after a failure."""
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        bound = min(self._usual * 2**self._failures, self._most)
        return self.spread(self._usual) if bound <= self._usual else self._random.uniform(self._usual, bound)

    def spread(self, seconds: float) -> float:
        """A little longer, at random: for whatever servers should not do in step."""
        return seconds * (1 + self._random.uniform(0, self._jitter))
