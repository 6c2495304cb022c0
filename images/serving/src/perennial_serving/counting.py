"""What one model version has done since it was loaded: plain arrays and integers, written by the event loop, read at each scrape.

Only the event loop's thread writes, so nothing here takes a lock; a scrape may see a request's rows and not yet its latency.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

import numpy as np

from perennial_features.reference import Counts, Reference

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds in seconds: fine where model servers answer, coarse where they should not."""
PROTOCOLS = ("oip", "mlflow", "grpc")


class VersionCounters:
    """The counters of one version.

    Every bin, and each protocol's 200 and 500, begin at 0: Prometheus' `increase()` sees a counter's rise only from its first sample.
    """

    def __init__(self, reference: Reference) -> None:
        self.bins: Counts = np.zeros(len(reference.series), dtype=np.int64)
        """int64[bins] in the order of `Reference.series`."""
        self.rows = 0
        self.answered: dict[tuple[str, int], int] = {(p, code): 0 for p in PROTOCOLS for code in (200, 500)}
        """By protocol and status."""
        self.latency = [0] * (len(BUCKETS) + 1)
        """Requests by bucket, not cumulated; the last is above all bounds."""
        self.seconds = 0.0

    def predicted(self, rows: int) -> None:
        """Count predicted rows; their bins are added to `bins` in place."""
        self.rows += rows

    def request(self, protocol: str, code: int, seconds: float) -> None:
        """Count a request that this version took part in."""
        key = (protocol, code)
        self.answered[key] = self.answered.get(key, 0) + 1
        self.latency[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def requests(self, protocol: str, code: int, seconds: list[float]) -> None:
        """Count the requests of one turn."""
        for each in seconds:
            self.request(protocol, code, each)


class ServerCounters:
    """Requests that no version answered, and feedback."""

    def __init__(self) -> None:
        self.refused: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        """By pipeline ("" when it is not one of ours), protocol and status."""
        self.labels: defaultdict[str, int] = defaultdict(int)
        """Labels accepted, by pipeline."""
        self.shed: defaultdict[str, int] = defaultdict(int)
        self.shadow_dropped: defaultdict[tuple[str, str], int] = defaultdict(int)
