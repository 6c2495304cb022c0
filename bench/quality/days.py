"""What labels cost on day 1 and on day 100: micro-batches every three hours, labels six hours late, tables compacted as servers do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from bench.quality import spec
from bench.quality.child import Child
from bench.quality.logs import Logs

BATCHES = 8
"""A day."""
ROWS = 600
"""Predictions a batch, and labels."""
LATE = 2
"""Batches between a prediction and its label."""
SHOWN = (1, 2, 7, 8, 14, 25, 50, 75, 100)
_DAY = 86_400 * 10**6


@dataclass(frozen=True)
class Day:
    refresh: float
    """Seconds of a refresh after one more micro-batch of each table, the median of the day."""
    start: float | None
    """Seconds that a new exporter takes to its first figures at the end of the day; on the days of `SHOWN`."""
    resident: float
    """MB of the exporter that runs since day 1, at the end of the day."""
    labels: float
    """In the window."""


def run(work: Path, days: int) -> list[Day]:
    """Takes about two minutes for 100 days."""
    pipelines, logs = spec.write(work / "pipelines"), Logs(work / "store", spec.PIPELINE)
    rng = np.random.default_rng(0)
    first = time.time_ns() // 1000 - days * _DAY
    found = []
    with Child(work / "store", pipelines) as child:
        for day in range(days):
            took = [_batch(child, logs, rng, first, day * BATCHES + number) for number in range(BATCHES)]
            _, resident, labels = child.refresh(first + (day + 1) * _DAY)
            start = _start(work / "store", pipelines, first + (day + 1) * _DAY, labels) if day + 1 in SHOWN else None
            found.append(Day(median(took), start, resident, labels))
    return found


def _start(store: Path, pipelines: Path, now: int, labels: float) -> float:
    with Child(store, pipelines) as fresh:
        fresh.resident()  # it has started
        took, _, again = fresh.refresh(now)
    assert labels == again, "a restart says the same"
    return took


def _batch(child: Child, logs: Logs, rng: np.random.Generator, first: int, number: int) -> float:
    now = first + number * _DAY // BATCHES
    made = [f"e{row}" for row in range(number * ROWS, (number + 1) * ROWS)]
    inputs = [{"origin": origin} for origin in rng.choice(["EWR", "JFK", "LGA"], ROWS)]
    logs.predict(made, rng.random(ROWS), np.full(ROWS, now), inputs, written=now)
    if number >= LATE:
        known = [f"e{row}" for row in range((number - LATE) * ROWS, (number - LATE + 1) * ROWS)]
        logs.label(known, (rng.random(ROWS) < 0.3).astype(float), now, written=now)
    return child.refresh(now)[0]
