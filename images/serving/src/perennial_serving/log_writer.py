"""`python -m perennial_serving.log_writer FD`: the process that appends the log to its tables.

It reads segments from the socket that it inherited from the model server, appends them in micro-batches, and acknowledges what is in the
tables. It reads no more than it may hold, so that what waits, waits in the server, which drops and counts what it has no room for.
It ends when the server has: at the end of the socket it writes what it was sent, and tries on for a while when the store is away.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import socket
import sys
import time
from contextlib import suppress

from perennial_serving.log_frames import LENGTH, Ack, Hello, Segment, frames, segment_of

log = logging.getLogger(__name__)
_MAX_BYTES = 2 * 2**20
"""Encoded rows that are held; more are left in the socket."""
_MAX_WAIT_SECONDS = 30.0
_LOOK_SECONDS = 1.0
"""Whether the server still lives is looked at this often: a process that it forked may hold the socket open."""
_RECEIVE_BYTES = 2**18
_NICE = 19


class Writer:
    """The loop of the process: one thread that reads, appends and acknowledges in turn."""

    def __init__(self, sock: socket.socket, hello: Hello, received: bytearray) -> None:
        self._sock = sock
        self._poll = select.poll()  # select() cannot do with the descriptors of a server with many connections
        self._poll.register(sock, select.POLLIN)
        self._hello = hello
        self._received = received
        self._pending: dict[tuple[str, str], list[Segment]] = {}
        self._rows, self._bytes = 0, 0
        self._failures = 0
        self._next = 0.0
        """When to append next; counts only while something is pending."""
        self._end: float | None = None
        """When to give up; None while the server lives."""
        self._read_all = False

    def run(self) -> int:
        """Until the server has ended and all is written, or cannot be. Rows that were lost then."""
        self._take()
        while not self._done():
            if self._may_read():
                self._read(self._patience())
            else:
                time.sleep(self._patience())
            self._look_for_server()
            if self._due():
                self._flush()
        return self._rows

    def _done(self) -> bool:
        if self._end is None:
            return False
        return (self._read_all and not self._pending) or time.monotonic() > self._end

    def _may_read(self) -> bool:
        room = self._rows < 2 * self._hello.flush_rows and self._bytes < _MAX_BYTES
        return room and not self._read_all

    def _patience(self) -> float:
        """Seconds to wait for more before the next thing is due."""
        if not self._pending:
            return 0.0 if self._read_all else _LOOK_SECONDS
        if self._due():
            return 0.0
        return min(max(self._next - time.monotonic(), 0.0), _LOOK_SECONDS)

    def _due(self) -> bool:
        if not self._pending:
            return False
        full = self._rows >= self._hello.flush_rows or self._bytes >= _MAX_BYTES or self._read_all
        return (full and not self._failures) or time.monotonic() >= self._next

    def _read(self, patience: float) -> None:
        if not self._poll.poll(patience * 1000):
            self._read_all = self._end is not None
            return
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except ConnectionError:
            data = b""
        self._received += data
        if not data:
            self._read_all = True
            self._give_up_after_a_while()
        self._take()

    def _take(self) -> None:
        """Put the segments that have arrived where the next append finds them."""
        for frame in frames(self._received):
            segment = segment_of(frame)
            if not self._pending and not self._failures:
                self._next = time.monotonic() + self._hello.flush_seconds
            self._pending.setdefault((segment.pipeline, segment.table), []).append(segment)
            self._rows += segment.rows
            self._bytes += segment.size

    def _look_for_server(self) -> None:
        if self._end is None and os.getppid() != self._hello.parent:
            self._give_up_after_a_while()

    def _give_up_after_a_while(self) -> None:
        if self._end is None:
            self._end = time.monotonic() + self._hello.end_seconds
            self._failures, self._next = 0, 0.0

    def _flush(self) -> None:
        good = True
        for key in list(self._pending):
            good = self._append(*key) and good
        self._failures = 0 if good else min(self._failures + 1, 10)
        wait = min(self._hello.flush_seconds * 2**self._failures, _MAX_WAIT_SECONDS)
        self._next = time.monotonic() + (wait if self._end is None else min(wait, 0.2))

    def _append(self, pipeline: str, table: str) -> bool:
        segments = self._pending[pipeline, table]
        rows = sum(segment.rows for segment in segments)
        try:
            lost = self._hello.write(pipeline, table, self._hello.log, segments)
        except Exception as error:  # storage fails in many ways, and none of them may end the process
            log.warning("%d rows of %s/%s wait: %s", rows, pipeline, table, type(error).__name__)
            log.debug("%s", error)
            return False
        del self._pending[pipeline, table]
        self._rows -= rows
        self._bytes -= sum(segment.size for segment in segments)
        with suppress(ConnectionError):  # the server has ended, and nobody counts any more
            self._sock.sendall(Ack(pipeline, table, segments[-1].sequence, lost).frame())
        return True


def greeting(sock: socket.socket) -> tuple[Hello, bytearray] | None:
    """The first frame, and what came behind it; None when the server ended before it was sent."""
    received = bytearray()
    while True:
        if len(received) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(received)
            end = LENGTH.size + length
            if len(received) >= end:
                hello = pickle.loads(received[LENGTH.size : end])  # noqa: S301 (from our own parent, over a private socket)
                return hello, received[end:]
        data = sock.recv(_RECEIVE_BYTES)
        if not data:
            return None
        received += data


def answers_first() -> None:
    """Run only when no answer wants the processor, and give way at once: what there is no time to write is dropped, and counted."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(_NICE)


def main() -> int:
    """0 when all rows are written, 1 when some are lost."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # meant for the server, who tells us when it is done
        signal.signal(ending, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    answers_first()
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        greeted = greeting(sock)
        if greeted is None:
            return 0
        lost = Writer(sock, *greeted).run()
    if lost:
        log.error("%d rows of the prediction and label logs are lost: the store did not take them in time", lost)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
