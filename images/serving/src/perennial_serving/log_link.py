"""The model server's end of the connection to the process that writes its log. Nothing here blocks, but `wait` and `reap`."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from perennial_serving.log_frames import LENGTH, Ack, Hello, ack_of, frames

_RECEIVE_BYTES = 2**12
_PIECES = 512
"""Given to the system in one call; it takes at most 1,024."""
_FRUGAL = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "TOKIO_WORKER_THREADS": "1",
}
"""For the writer: threads that write small files need little, and each holds memory. What an append needed goes back to the system behind
it; left alone, glibc raises its thresholds with the first large piece, and keeps it."""


class Link:
    """A writer process, just started.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, hello: Hello) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "perennial_serving.log_writer", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**_FRUGAL, **os.environ},
                    # Ctrl-C is for the server: a group of its own. Not a session: Linux gives each session an equal share of the
                    # processor (autogroups), whatever its processes say of their priority.
                    process_group=0,
                )
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        self._sock = ours
        self._received = bytearray()
        data = pickle.dumps(hello)
        self._unsent = deque([LENGTH.pack(len(data)) + data])
        self._offset = 0
        """Bytes of the first unsent piece that are sent."""
        self._ending = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def put(self, pieces: Iterable[bytes]) -> None:
        """Send these bytes when there is room."""
        self._unsent.extend(pieces)

    def end(self) -> None:
        """Tell the writer, behind the last frame, that nothing will follow."""
        self._ending = True

    def pump(self) -> tuple[list[Ack], bool]:
        """Send what there is room for, and receive what has come: acknowledgements, and whether the writer lives."""
        alive = self.send()
        alive = self._receive() and alive  # in any case: what it said before it died counts
        return [ack_of(frame) for frame in frames(self._received)], alive

    def send(self) -> bool:
        """Send what there is room for; whether the writer lives."""
        try:
            while self._unsent:
                self._sent(self._sock.sendmsg(self._next()))
            if self._ending:
                self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _next(self) -> list[bytes | memoryview]:
        found: list[bytes | memoryview] = list(islice(self._unsent, _PIECES))
        if self._offset:
            found[0] = memoryview(found[0])[self._offset :]
        return found

    def _sent(self, count: int) -> None:
        count += self._offset
        while self._unsent and count >= len(self._unsent[0]):
            count -= len(self._unsent.popleft())
        self._offset = count

    def _receive(self) -> bool:
        try:
            while data := self._sock.recv(_RECEIVE_BYTES):
                self._received += data
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def wait(self, seconds: float) -> None:
        """Block until there is something to `pump`, at most so long."""
        poll = select.poll()  # select() cannot do with the descriptors of a server with many connections
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        poll.poll(seconds * 1000)

    def kill(self) -> None:
        """Make sure of the end, so that the next writer is the only one."""
        self._sock.close()
        self._process.kill()

    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def close(self, seconds: float) -> None:
        """Hang up, and block until the process has ended, at most so long. It goes on with what it was sent."""
        self._sock.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
