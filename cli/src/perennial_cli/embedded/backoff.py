"""When a part that died is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential, bounded, without an end: a full disk that is emptied heals the platform without a person."""

    first: float = 0.5
    """Seconds before the first restart."""
    factor: float = 2.0
    most: float = 30.0
    """Seconds between restarts at most."""
    settled: float = 60.0
    """A part that has run this many seconds has recovered: its failures are forgotten."""
    alarming: int = 3
    """This many failures in a row are reported as `failing`."""

    def failures(self, before: int, uptime: float) -> int:
        """Failures in a row, after one more process ended that had run for `uptime` seconds."""
        return 1 if uptime >= self.settled else before + 1

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        exponent = min(max(failures - 1, 0), 32)
        return min(self.first * self.factor**exponent, self.most)
