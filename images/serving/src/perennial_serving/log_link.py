"""The model server's end of the connection to the process that writes its log. Nothing here blocks, but `wait` and `reap`."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress

from perennial_serving.log_frames import LENGTH, Ack, Hello, ack_of, frames

_RECEIVE_BYTES = 2**16
_FRUGAL = {"MALLOC_ARENA_MAX": "2", "TOKIO_WORKER_THREADS": "2"}
"""For the writer: threads that write small files need little, and each holds memory."""


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
                    start_new_session=True,  # Ctrl-C is for the server
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
        """Bytes of the first unsent frame that are sent."""
        self._ending = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def put(self, frame: bytes) -> None:
        """Send the frame when there is room."""
        self._unsent.append(frame)

    def end(self) -> None:
        """Tell the writer, behind the last frame, that nothing will follow."""
        self._ending = True

    def pump(self) -> tuple[list[Ack], bool]:
        """Send what there is room for, and receive what has come: acknowledgements, and whether the writer lives."""
        alive = self._send()
        alive = self._receive() and alive  # in any case: what it said before it died counts
        return [ack_of(frame) for frame in frames(self._received)], alive

    def _send(self) -> bool:
        try:
            while self._unsent:
                first = self._unsent[0]
                self._offset += self._sock.send(memoryview(first)[self._offset :] if self._offset else first)
                if self._offset == len(first):
                    self._unsent.popleft()
                    self._offset = 0
            if self._ending:
                self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

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
