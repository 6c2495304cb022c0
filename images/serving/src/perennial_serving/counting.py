"""What one model version has done, and what the server has done beside: integers in flat arrays, which may lie in files that others read.

Only the event loop's thread adds, so nothing here takes a lock for that; a scrape may see a request's rows and not yet its latency.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from perennial_features.code import Array
from perennial_features.reference import Counts, Reference
from perennial_serving.counter_table import Numbers, Table

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds in seconds: fine where model servers answer, coarse where they should not."""
PROTOCOLS = ("oip", "mlflow", "grpc", "shadow", "explain")
OTHER = 0
"""Stands for every status that is not in `CODES`."""
CODES = (200, 400, 401, 404, 405, 408, 413, 415, 422, 429, 431, 500, 503, 504, OTHER)
UNCHANGED, CHANGED, FAILED = POLLS = ("unchanged", "changed", "failed")
"""What came of a look at the registry."""
REQUESTS, ROWS = "requests", "rows"
"""What may be in flight."""
_BEGIN_AT_0 = [(protocol, code) for protocol in PROTOCOLS[:3] for code in (200, 500)]

_ROWS, _NANOSECONDS, _LATENCY = 0, 1, 2
_REQUESTS = _LATENCY + len(BUCKETS) + 1
_PLACES = {
    (protocol, code): _REQUESTS + place
    for place, (protocol, code) in enumerate((protocol, code) for protocol in PROTOCOLS for code in CODES)
}
_EXPLAINED, _UNEXPLAINED = _REQUESTS + len(_PLACES), _REQUESTS + len(_PLACES) + 1
_BINS = _REQUESTS + len(_PLACES) + 2
ATTRIBUTION_UNITS = 2**20
"""Attributions are counted in this part of the reference's mean row: integers add up exactly, in any order and over any workers."""


class VersionCounters:
    """The counters of one version, in one array: rows, time, latency, requests, rows explained, bins, values out of range, attributions.

    Every bin, and each protocol's 200 and 500, begin at 0: Prometheus' `increase()` sees a counter's rise only from its first sample.

    Args:
        reference: says which bins there are.
        cells: int64[`size_of(reference)`] to count in; otherwise new memory.
    """

    def __init__(self, reference: Reference, cells: Counts | None = None) -> None:
        self.cells: Counts = np.zeros(size_of(reference), dtype=np.int64) if cells is None else cells
        assert len(self.cells) == size_of(reference)
        end = _BINS + len(reference.series) + len(reference.ranged)
        self.values: Counts = self.cells[_BINS:end]
        """int64[bins, ranged]: `Reference.series`, then `Reference.ranged`; also added to in place."""
        self.bins: Counts = self.values[: len(reference.series)]
        """int64[bins] in the order of `Reference.series`."""
        self._attributions: Counts = self.cells[end:]
        self._attribution = reference.attribution
        self._items = self.cells.data  # three times as fast as the array, one by one
        self._latency = self._items[_LATENCY:_REQUESTS]

    @property
    def counted(self) -> Counted:
        """What was counted until now."""
        return Counted(self.cells, len(self.bins), len(self.values) - len(self.bins))

    @property
    def rows(self) -> int:
        """Rows predicted."""
        return int(self._items[_ROWS])

    def observe(self, increments: Counts, rows: int) -> None:
        """Count predicted rows and their bins."""
        self.bins += increments
        self._items[_ROWS] += rows

    def predicted(self, rows: int) -> None:
        """Count predicted rows, whose bins are added to `values` in place."""
        self._items[_ROWS] += rows

    def explained(self, contributions: Array, unexplained: int = 0) -> None:
        """Count sampled rows that were explained, and those that could not be.

        Args:
            contributions: float[rows, features], in the unit of the margin.
        """
        assert self._attribution is not None  # there is a sample
        totals = np.abs(contributions).sum(axis=0, dtype=np.float64)
        self._attributions += np.rint(totals * (ATTRIBUTION_UNITS / self._attribution.scale)).astype(np.int64)
        self._items[_EXPLAINED] += len(contributions)
        self._items[_UNEXPLAINED] += unexplained

    def unexplained(self, rows: int) -> None:
        """Count sampled rows that were given up."""
        self._items[_UNEXPLAINED] += rows

    def request(self, protocol: str, code: int, seconds: float) -> None:
        """Count a request that this version took part in."""
        self._items[_place(protocol, code)] += 1
        self._latency[bisect_left(BUCKETS, seconds)] += 1
        self._items[_NANOSECONDS] += int(seconds * 1e9)

    def requests(self, protocol: str, code: int, seconds: list[float]) -> None:
        """Count the requests of one turn of the event loop. Sorts `seconds`."""
        count = len(seconds)
        if count < 2:
            for each in seconds:
                self.request(protocol, code, each)
            return
        self._items[_place(protocol, code)] += count
        self._items[_NANOSECONDS] += int(sum(seconds) * 1e9)
        seconds.sort()  # mostly sorted already: who came first has waited for longest
        latency, last = self._latency, bisect_left(BUCKETS, seconds[-1])
        done = 0
        for bucket in range(bisect_left(BUCKETS, seconds[0]), last):
            upto = bisect_right(seconds, BUCKETS[bucket], done)
            latency[bucket] += upto - done
            done = upto
        latency[last] += count - done


def size_of(reference: Reference) -> int:
    """Cells that a version's counters take."""
    attributed = len(reference.attribution.features) if reference.attribution else 0
    return _BINS + len(reference.series) + len(reference.ranged) + attributed


class Counted:
    """What `cells` of a `VersionCounters` say; they may be a sum over several.

    Args:
        bins: bins that are counted.
        ranged: features whose values out of range are counted; the cells after them are attributions.
    """

    def __init__(self, cells: Counts, bins: int, ranged: int = 0) -> None:
        values: list[int] = cells.tolist()
        self.rows = values[_ROWS]
        self.seconds = values[_NANOSECONDS] / 1e9
        self.latency = values[_LATENCY:_REQUESTS]
        """Requests by bucket, not cumulated; the last is above all bounds."""
        begin = dict.fromkeys(_BEGIN_AT_0, 0)
        self.requests = begin | {key: values[place] for key, place in _PLACES.items() if values[place]}
        """By protocol and status."""
        self.explained, self.unexplained = values[_EXPLAINED], values[_UNEXPLAINED]
        end = _BINS + bins
        self.bins = values[_BINS:end]
        self.out_of_range = values[end : end + ranged]
        """By feature of `Reference.ranged`."""
        self.attributions = values[end + ranged :]
        """By feature, in `ATTRIBUTION_UNITS` of the reference's mean row; empty where attributions are not counted."""


class ServerCounters:
    """Requests that no version answered, feedback, and what was dropped. Keys are bounded: no client can make one."""

    def __init__(self, numbers: Numbers | None = None) -> None:
        self.numbers = numbers = Numbers() if numbers is None else numbers
        self.refused = numbers.table("refused")
        """By pipeline ("" when it is not one of ours), protocol and status."""
        self.labels = numbers.table("labels")
        """Labels accepted, by pipeline."""
        self.rewards = numbers.table("rewards")
        """Rewards accepted, by pipeline and version."""
        self.reward_sums = numbers.sums("reward_sums")
        """Their sum, by pipeline and version."""
        self.shed = numbers.table("shed")
        """Requests that were refused because too many were in progress, by pipeline."""
        self.in_flight = numbers.table("in_flight")
        """`REQUESTS` and `ROWS` that are in progress at this moment, set again and again."""
        self.shadow_dropped = numbers.table("shadow_dropped")
        """Rows that a shadow version did not get to see, by pipeline and version."""
        self.polls = numbers.table("registry_polls")
        """Looks at the registry, by outcome. The follower's thread adds, and nobody else."""
        self.log_written = numbers.table("log_written")
        """Prediction rows in the log's table, by pipeline; so the two below."""
        self.log_dropped = numbers.table("log_dropped")
        self.log_sampled_out = numbers.table("log_sampled_out")

    def read(self) -> dict[str, dict[tuple[str, ...], float]]:
        """All numbers, by the names of their tables."""
        return {name: dict(table.items()) for name, table in vars(self).items() if isinstance(table, Table)}


def _place(protocol: str, code: int) -> int:
    place = _PLACES.get((protocol, code))
    return _PLACES[protocol, OTHER] if place is None else place
