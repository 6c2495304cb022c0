"""Taking connections from a socket that several processes share, each about as many as the others.

Of the processes that wait the system wakes whichever it likes, and one that is awake takes what there is: of 32 clients that connect at
once, and keep their connections, one worker may get all. So each writes down how many it has, and who has more than the one with
fewest waits a moment before it takes another, in which that one wakes and takes it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

_SLOTS = 512
"""Twice as many as there may be workers."""
_STEP_SECONDS, _LONGEST_SECONDS = 0.001, 0.01
"""To wait for each connection that one has more; and at most, since the one with fewest may be stuck."""
_RETRY_SECONDS = 0.5
"""To wait when the process can open nothing more."""
_BACKLOG = 1024


class Board:
    """How many connections each worker has, in a file that all share."""

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / "connections", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, 8 * _SLOTS)
            self._cells = memoryview(mmap.mmap(descriptor, 8 * _SLOTS)).cast("q")
        finally:
            os.close(descriptor)

    def put(self, slot: int, connections: int) -> None:
        self._cells[slot] = connections + 1

    def clear(self, slot: int) -> None:
        """Nobody at this slot takes connections."""
        self._cells[slot] = 0

    @property
    def fewest(self) -> int:
        """That any worker has; 0 when there is none."""
        return min((cell for cell in self._cells.tolist() if cell), default=1) - 1


class Acceptor:
    """Takes connections for the worker at `slot`.

    Args:
        sock: bound; others may listen on it too.
        take: what becomes of a client.
        count: how many connections there are now.
    """

    def __init__(
        self,
        sock: socket.socket,
        take: Callable[[socket.socket], None],
        count: Callable[[], int],
        board: Board,
        slot: int,
    ) -> None:
        self._sock, self._take, self._count, self._board, self._slot = sock, take, count, board, slot
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._waited = False
        """For the client that is next."""
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        self._board.put(slot, 0)
        self._wait()

    def stop(self) -> None:
        """Take no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._board.clear(self._slot)

    def note(self) -> None:
        """Write down how many there are: now and then, since those that end are not told of."""
        self._board.put(self._slot, self._count())

    def _wait(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._ready)

    def _ready(self) -> None:
        mine = self._count()
        if not self._waited and (more := mine - self._board.fewest) > 0:
            self._waited = True
            self._wait_for(min(more * _STEP_SECONDS, _LONGEST_SECONDS))
            return
        self._waited = False
        try:
            client, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another was faster, or the client has gone
            return
        except OSError:  # no more descriptors, or no memory: others may have some
            self._wait_for(_RETRY_SECONDS)
            return
        self._take(client)
        self._board.put(self._slot, mine + 1)

    def _wait_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(seconds, self._wait)
