"""What a replay sends, and when: pure arithmetic over simulated time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Event:
    """One row of the past: its inputs, when it was known, and what came of it."""

    at: datetime
    """When a client would have asked, UTC."""
    entity: str
    inputs: dict[str, Any]
    """JSON values by column, entity and timestamp included."""
    label: float | None
    """None when it never arrived: a cancelled flight, say."""


@dataclass(frozen=True)
class Plan:
    """Events in the order of their time, and how fast to send them."""

    events: tuple[Event, ...]
    start: datetime
    end: datetime
    per_second: timedelta
    """Simulated time that passes in one second."""
    label_delay: timedelta
    batch: int = 10
    """Rows per request at most."""

    @property
    def seconds(self) -> float:
        """How long the whole replay takes on a machine that keeps up."""
        return (self.end - self.start) / self.per_second

    def simulated(self, elapsed: float) -> datetime:
        """The simulated time after `elapsed` seconds; never past the end."""
        return min(self.start + self.per_second * elapsed, self.end)


class Cursor:
    """How far a replay has come: which rows to ask for next, and which labels have arrived."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._times = [event.at for event in plan.events]
        self._by_label = sorted((e for e in plan.events if e.label is not None), key=lambda event: event.at)
        self._label_times = [event.at + plan.label_delay for event in self._by_label]
        self._asked = 0
        self._labelled = 0

    @property
    def is_done(self) -> bool:
        return self._asked == len(self._times)

    def ask(self, now: datetime) -> Iterator[tuple[Event, ...]]:
        """The rows that came between the last call and `now`, in requests of at most `batch` rows."""
        end = len(self._times) if now >= self._plan.end else bisect_left(self._times, now)
        while self._asked < end:
            upto = min(self._asked + self._plan.batch, end)
            yield self._plan.events[self._asked : upto]
            self._asked = upto

    def labels(self, now: datetime) -> tuple[Event, ...]:
        """The rows whose label has arrived since the last call, and that were asked for."""
        end = bisect_left(self._label_times, now)
        start, self._labelled = self._labelled, max(self._labelled, end)
        return tuple(self._by_label[start:end])
