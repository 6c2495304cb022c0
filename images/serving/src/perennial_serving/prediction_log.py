"""The log of predictions and labels: a bounded queue in front of one thread that appends to Delta tables.

A row that does not fit is dropped and counted: the log never delays an answer. Rows that cannot be written (the store is away, the
disk is full) wait in the queue and are tried again.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from perennial_features.bundle import Scores
from perennial_serving.rows import Rows
from perennial_serving.settings import Settings
from perennial_spec import logs

log = logging.getLogger(__name__)
_MAX_WAIT_SECONDS = 30.0
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True)
class PredictionRows:
    """What one version answered in one request."""

    ids: Sequence[str]
    entities: Sequence[str | None]
    version: str
    scores: Scores
    shadow: bool
    at: int
    """Microseconds since 1970, UTC."""
    rows: Rows
    logged: tuple[str, ...]
    """Columns of `rows` that may be stored."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Label:
    entity: str
    label: float
    at: int
    """Microseconds since 1970, UTC."""


Columns = dict[str, list[Any]]
Write = Callable[[str, str, Columns], None]
"""(pipeline, table, columns) appended to the table, or an exception; see `tables.Tables`."""


class PredictionLog:
    """The queue and its thread. `predictions` and `labels` are called on the event loop and never block."""

    def __init__(self, write: Write, settings: Settings) -> None:
        self._write = write
        self._settings = settings
        self._lock = threading.Lock()
        self._predictions: defaultdict[str, list[PredictionRows]] = defaultdict(list)
        self._labels: defaultdict[str, list[Label]] = defaultdict(list)
        self._rows = 0
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.written: defaultdict[str, int] = defaultdict(int)
        """Prediction rows in the table, by pipeline."""
        self.dropped: defaultdict[str, int] = defaultdict(int)
        """Prediction rows that found no room, by pipeline."""

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._rows:
            log.error("%d rows of the prediction and label logs could not be written before the end", self._rows)

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._rows

    def predictions(self, pipeline: str, entry: PredictionRows) -> None:
        """Take the entry, or drop it when there is no room."""
        with self._lock:
            if self._room(len(entry)):
                self._predictions[pipeline].append(entry)
            else:
                self.dropped[pipeline] += len(entry)

    def labels(self, pipeline: str, labels: Sequence[Label]) -> bool:
        """Take the labels; False when there is no room for all of them."""
        with self._lock:
            taken = self._room(len(labels))
            if taken:
                self._labels[pipeline].extend(labels)
        return taken

    def _room(self, rows: int) -> bool:
        if self._rows + rows > self._settings.log_queue_rows:
            return False
        self._rows += rows
        if self._rows >= self._settings.log_flush_rows:
            self._wake.set()
        return True

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            if failures:
                self._stop.wait(min(self._settings.log_flush_seconds * 2**failures, _MAX_WAIT_SECONDS))
            elif self._wake.wait(self._settings.log_flush_seconds):
                self._stop.wait(self._settings.log_flush_seconds / 10)  # a burst must not become a commit per request
            self._wake.clear()
            failures = 0 if self._flush() else min(failures + 1, 6)
        self._flush()

    def _flush(self) -> bool:
        """Write everything that waits; what could not be written is put back. Whether all was written."""
        with self._lock:
            predictions, self._predictions = self._predictions, defaultdict(list)
            labels, self._labels = self._labels, defaultdict(list)
        good = True
        for pipeline, entries in predictions.items():
            if self._append(pipeline, logs.PREDICTIONS, prediction_columns(entries), sum(map(len, entries))):
                self.written[pipeline] += sum(map(len, entries))
                continue
            good = False
            with self._lock:
                self._predictions[pipeline] = entries + self._predictions[pipeline]
        for pipeline, waiting in labels.items():
            if not self._append(pipeline, logs.LABELS, label_columns(waiting), len(waiting)):
                good = False
                with self._lock:
                    self._labels[pipeline] = waiting + self._labels[pipeline]
        return good

    def _append(self, pipeline: str, table: str, columns: Columns, rows: int) -> bool:
        try:
            self._write(pipeline, table, columns)
        except Exception as error:  # storage fails in many ways, and none of them may end the thread
            log.warning("%d rows of %s/%s wait: %s", rows, pipeline, table, type(error).__name__)
            log.debug("%s", error)
            return False
        with self._lock:
            self._rows -= rows
        return True


def prediction_columns(entries: Iterable[PredictionRows]) -> Columns:
    """Entries as the columns of the predictions table."""
    columns: Columns = {name: [] for name in logs.PREDICTION_COLUMNS}
    for entry in entries:
        count = len(entry)
        columns[logs.PREDICTION_ID] += entry.ids
        columns[logs.ENTITY] += entry.entities
        columns[logs.VERSION] += [entry.version] * count
        columns[logs.SCORE] += entry.scores.tolist()
        columns[logs.SHADOW] += [entry.shadow] * count
        columns[logs.AT] += [entry.at] * count
        columns[logs.INPUTS] += _inputs(entry.rows, entry.logged)
    return columns


def label_columns(labels: Sequence[Label]) -> Columns:
    """Labels as the columns of the labels table."""
    return {
        logs.ENTITY: [label.entity for label in labels],
        logs.LABEL: [label.label for label in labels],
        logs.AT: [label.at for label in labels],
    }


def _inputs(rows: Rows, logged: tuple[str, ...]) -> list[str]:
    kept = {name: rows.columns[name] for name in logged if name in rows.columns}
    return [
        orjson.dumps({name: values[row] for name, values in kept.items()}, option=_OPTIONS).decode()
        for row in range(rows.count)
    ]
