"""The log of predictions and labels, as the model server has it: a bounded queue in front of a process that appends to Delta tables.

What is taken is encoded at once and kept until the writer says that it is in the table. A row that does not fit is dropped and counted: the
log never delays an answer. Rows that cannot be written (the store is away, the disk is full) wait, here and in the writer, which
tries again. When the writer dies, a new one is sent all that was not acknowledged; the tables know what they have.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from perennial_serving.counting import ServerCounters
from perennial_serving.log_entries import Block, Label, PredictionRows, encode_rows, sampled, share_of
from perennial_serving.log_frames import Ack, Hello, Segment, Write
from perennial_serving.log_link import Link
from perennial_serving.settings import Settings
from perennial_spec import logs

__all__ = ["Block", "Label", "PredictionLog", "PredictionRows", "sampled", "share_of"]

log = logging.getLogger(__name__)
_SEGMENT_BYTES = 2**16
"""A segment is closed and sent when it is this large, or at the next tick."""
_MAX_BYTES = 6 * 2**20
"""Encoded rows that may wait, whatever their number."""
_TICK, _SLOW_TICK = 0.02, 0.1
"""Seconds until what was taken is sent, and until acknowledgements are looked for."""
_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.1, 30.0
"""First and longest wait before a writer that died is followed by another."""


class Entry(Protocol):
    """`Block` or `PredictionRows`."""

    def __len__(self) -> int: ...
    def encoded(self) -> bytes: ...


@dataclass
class _Queue:
    """What waits for one table: entries of the segment that is still open, and segments that are not acknowledged."""

    entries: list[bytes] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    closed: deque[tuple[Segment, int]] = field(default_factory=deque)
    """And their sizes."""


class PredictionLog:
    """`predictions` and `labels` belong to the thread of the event loop, and never block; so does `start`, but for starting a process.

    Args:
        write: `Tables.append`, or another function that can be pickled: it is called in the writer.
        counters: to count in.
    """

    def __init__(self, write: Write, settings: Settings, counters: ServerCounters | None = None) -> None:
        self._write = write
        self._settings = settings
        self._name = uuid.uuid4().hex
        self._queues: defaultdict[tuple[str, str], _Queue] = defaultdict(_Queue)
        self._rows, self._bytes, self._sequence = 0, 0, 0
        self._link: Link | None = None
        self._dying: Link | None = None
        self._failures, self._retry_at = 0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._started, self._stopping = False, False
        self._lock = threading.Lock()
        """Between the timer and `stop`, which may come from another thread."""
        counters = ServerCounters() if counters is None else counters
        self.written = counters.log_written
        """Prediction rows in the table, by pipeline."""
        self.dropped = counters.log_dropped
        """Prediction rows that found no room, by pipeline."""
        self.sampled_out = counters.log_sampled_out
        """Prediction rows that the spec's `monitoring.log.share` left out, by pipeline. The caller counts; see `sampled`."""

    def start(self) -> None:
        """Start the writer. It imports what appending needs when there is something to append."""
        with self._lock:
            self._started = True
            self._pump()

    def stop(self, timeout: float) -> None:
        """Write what waits, and block for at most `timeout` seconds. Nothing may be logged any more."""
        end = time.monotonic() + timeout
        with self._lock:
            self._stopping = True
            self._close_segments()
            while self._started and (left := end - time.monotonic()) > 0:
                if not self._finish(left):
                    break
            for link in (self._link, self._dying):
                if link is not None:
                    link.close(max(end - time.monotonic(), 0.0))
        if self._rows:
            log.error("%d rows of the prediction and label logs were not written before the end", self._rows)

    @property
    def waiting(self) -> int:
        """Rows that are not yet in a table."""
        return self._rows

    @property
    def writer(self) -> int | None:
        """Process id of the writer, if there is one now."""
        return None if self._link is None else self._link.pid

    def predictions(self, pipeline: str, entry: Entry) -> None:
        """Take the entry, or drop it when there is no room."""
        rows = len(entry)
        if not self.room(pipeline, rows):
            return
        try:
            data = entry.encoded()
        except Exception as error:  # the answer is good, and on its way
            what = type(error).__name__  # and no more: the message may hold what was sent
            log.warning("%d rows of %s cannot be logged: %s", rows, pipeline, what)
            self.dropped[pipeline] += rows
            return
        self._take(pipeline, logs.PREDICTIONS, rows, data)

    def room(self, pipeline: str, rows: int) -> bool:
        """Whether there is room for so many predictions now; if not, they count as dropped: ask once, before the entry is made."""
        room = self._room(rows)
        if not room:
            self.dropped[pipeline] += rows
        return room

    def labels(self, pipeline: str, labels: Sequence[object]) -> bool:
        """Take the labels; False when there is no room for all of them.

        A label is a `Label`, or anything else with the columns of the labels table as attributes.
        """
        return self.rows(pipeline, logs.LABELS, labels)

    def rows(self, pipeline: str, table: str, rows: Sequence[object]) -> bool:
        """Take rows of one of `logs.ROW_COLUMNS`; False when there is no room for all of them."""
        taken = self._room(len(rows))
        if taken and rows:
            self._take(pipeline, table, len(rows), encode_rows(table, rows))
        return taken

    def _room(self, rows: int) -> bool:
        return self._rows + rows <= self._settings.log_queue_rows and self._bytes < _MAX_BYTES

    def _take(self, pipeline: str, table: str, rows: int, data: bytes) -> None:
        queue = self._queues[pipeline, table]
        queue.entries.append(data)
        queue.rows += rows
        queue.size += len(data)
        self._rows += rows
        self._bytes += len(data)
        if queue.size >= _SEGMENT_BYTES:
            with self._lock:
                self._close_segments()
                if self._link is not None:
                    self._link.send()  # whether it lives is for the tick to see
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        with self._lock:
            if self._stopping:
                return
            self._pump()
            if self._rows:
                busy = self._link is not None and self._link.unsent
                self._timer = asyncio.get_running_loop().call_later(_TICK if busy else _SLOW_TICK, self._tick)

    def _pump(self) -> None:
        """Send what was taken, and note what is written."""
        self._close_segments()
        if self._link is None:
            self._connect()
        if self._link is not None:
            link = self._link
            acks, alive = link.pump()
            for ack in acks:
                self._acknowledge(ack)
            if not alive:
                self._bury(link)

    def _close_segments(self) -> None:
        for (pipeline, table), queue in self._queues.items():
            if not queue.entries:
                continue
            self._sequence += 1
            segment = Segment(self._sequence, pipeline, table, queue.rows, queue.entries)
            queue.closed.append((segment, queue.size))
            queue.entries, queue.rows, queue.size = [], 0, 0
            if self._link is not None:
                self._link.put(segment.pieces())

    def _acknowledge(self, ack: Ack) -> None:
        self._failures = 0
        closed = self._queues[ack.pipeline, ack.table].closed
        done = 0
        while closed and closed[0][0].sequence <= ack.sequence:
            segment, size = closed.popleft()
            done += segment.rows
            self._bytes -= size
        self._rows -= done
        if ack.table == logs.PREDICTIONS:
            self.written[ack.pipeline] += done - ack.lost
            self.dropped[ack.pipeline] += ack.lost

    def _connect(self) -> None:
        """Start a writer and send it all that waits, unless it is too early for that."""
        if not self._started or time.monotonic() < self._retry_at:
            return
        if self._dying is not None and not self._dying.ended():  # two writers at once could both append the same rows
            return
        self._dying = None
        settings = self._settings
        hello = Hello(
            self._name,
            os.getpid(),
            self._write,
            settings.log_flush_seconds,
            settings.log_flush_rows,
            settings.shutdown_seconds,
        )
        try:
            self._link = Link(hello)
        except OSError as error:
            self._back_off(f"the writer of the log cannot be started: {error.strerror}")
            return
        waiting = [segment for queue in self._queues.values() for segment, _ in queue.closed]
        for segment in sorted(waiting, key=lambda segment: segment.sequence):
            self._link.put(segment.pieces())

    def _bury(self, link: Link) -> None:
        if not self._stopping:
            link.kill()
        self._link, self._dying = None, link
        if self._rows or not self._stopping:
            self._back_off(f"the writer of the log, process {link.pid}, has ended")

    def _back_off(self, what: str) -> None:
        wait = min(_RETRY_SECONDS * 2**self._failures, _MAX_RETRY_SECONDS)
        self._failures = min(self._failures + 1, 10)
        self._retry_at = time.monotonic() + wait
        log.warning("%s; %d rows wait for the next, in %.1f seconds", what, self._rows, wait)

    def _finish(self, left: float) -> bool:
        """One step towards the end; False when there is nothing more to do."""
        if self._link is not None:
            self._link.end()
        self._pump()
        if self._link is not None:
            self._link.wait(left)
            return True
        if self._rows:
            time.sleep(min(left, max(self._retry_at - time.monotonic(), 0.01)))
        return bool(self._rows)
