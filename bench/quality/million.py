"""What a refresh costs with a million predictions in the window, all with labels; beside scikit-learn on the same rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench.quality import spec
from bench.quality.child import Child
from bench.quality.logs import Logs

MORE = 100
"""Predictions and labels that come between two refreshes."""
ROUNDS = 9
_BLOCK = 100_000


@dataclass(frozen=True)
class Cost:
    rows: int
    start: float
    """Seconds that a start takes: all rows are read and joined."""
    refresh: float
    """Seconds of a refresh after `MORE` predictions and labels, the median: by version and by three values of a slice."""
    resident: float
    """MB."""
    before: float
    """MB with nothing in the window."""
    sklearn: float
    """Seconds of ROC AUC, log loss and Brier score on the rows, already joined, without slices and intervals."""


def run(work: Path, rows: int) -> Cost:
    pipelines, logs = spec.write(work / "pipelines"), Logs(work / "store", spec.PIPELINE)
    rng = np.random.default_rng(0)
    now = time.time_ns() // 1000 + 60 * 10**6
    scores, labels = rng.random(rows), (rng.random(rows) < 0.3).astype(float)
    for begin in range(0, rows, _BLOCK):
        _write(logs, rng, begin, scores[begin : begin + _BLOCK], labels[begin : begin + _BLOCK], now)
    with Child(work / "store", pipelines) as child:
        before = child.resident()
        start, _, known = child.refresh(now)
        assert known == rows
        took = []
        for number in range(ROUNDS):
            more = rng.random(MORE)
            _write(logs, rng, rows + number * MORE, more, (more > 0.5).astype(float), now)
            seconds, resident, known = child.refresh(now)
            assert known == rows + (number + 1) * MORE
            took.append(seconds)
    return Cost(rows, start, median(took), resident, before, _sklearn(scores, labels))


def _write(logs: Logs, rng: np.random.Generator, begin: int, scores: Any, labels: Any, now: int) -> None:
    names = [f"e{row}" for row in range(begin, begin + len(scores))]
    inputs = [{"origin": origin} for origin in rng.choice(["EWR", "JFK", "LGA"], len(scores))]
    logs.predict(names, scores, now - rng.integers(0, 6 * 86_400 * 10**6, len(scores)), inputs)
    logs.label(names, labels, now)


def _sklearn(scores: Any, labels: Any) -> float:
    from sklearn import metrics

    took = []
    for _ in range(3):
        began = time.perf_counter()
        metrics.roc_auc_score(labels, scores)
        metrics.log_loss(labels, scores)
        metrics.brier_score_loss(labels, scores)
        took.append(time.perf_counter() - began)
    return median(took)
