"""The place of a worker among several: what it inherits from the supervisor, and how it hears and tells what is in `post`.

A worker takes connections when it has its models: before, another answers better. When the supervisor is gone the line ends, and the worker
ends as it does after SIGINT.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from perennial_serving.acceptor import Board
from perennial_serving.counter_files import CounterFiles
from perennial_serving.fleet import Fleet
from perennial_serving.post import ACCEPT, ANSWERS, DRAIN, LEAVE, LOADED, Post

log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.02


class Place:
    """One worker's place.

    Raises:
        PlatformError: its counters have no room.
    """

    def __init__(self, post: Post) -> None:
        self.folder = Path(post.folder)
        self.slot = post.slot
        self.files = CounterFiles(self.folder, post.slot)
        self.board = Board(self.folder)
        for descriptor in (post.listener, post.line):
            os.set_inheritable(descriptor, False)  # our own children have no business with them
        self._line = socket.socket(fileno=post.line)
        self._admitted = threading.Event()
        self._orphaned = False
        self._telling: asyncio.Task[None] | None = None

    def listen(self, fleet: Fleet, patience: float) -> None:
        """Hear what the supervisor says, in a thread of its own.

        Args:
            patience: seconds that the end may take when the supervisor is gone; after that, it comes at once.
        """
        threading.Thread(target=self._hear, args=(fleet, patience), name="supervisor", daemon=True).start()

    def _hear(self, fleet: Fleet, patience: float) -> None:
        while word := self._said():
            if word == ACCEPT:
                self._admitted.set()
                continue
            fleet.replaced = word == LEAVE
            if not fleet.draining:  # nobody has sent us the signal itself: a second one means haste
                os.kill(os.getpid(), signal.SIGTERM if word == DRAIN else signal.SIGINT)
        log.warning("the supervisor is gone: this worker ends")
        self._orphaned = True
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(patience)
        os._exit(1)

    def _said(self) -> bytes:
        try:
            return self._line.recv(1)
        except OSError:
            return b""

    async def admittance(self, fleet: Fleet) -> None:
        """Until this worker is to answer, or to end."""
        while not (fleet.started or fleet.draining or self._admitted.is_set()):  # noqa: ASYNC110 (said by other threads)
            await asyncio.sleep(_LOOK_SECONDS)

    def answers(self, fleet: Fleet) -> None:
        """Tell the supervisor that this worker takes connections, and later that it has its models."""
        self._say(ANSWERS)
        self._telling = asyncio.create_task(self._tell_when_loaded(fleet))

    async def _tell_when_loaded(self, fleet: Fleet) -> None:
        while not fleet.started:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        self.files.sweep()
        self._say(LOADED)

    def leave(self) -> None:
        """At the very end."""
        if self._orphaned:
            self.files.abandon()

    def _say(self, word: bytes) -> None:
        with suppress(OSError):  # nobody is there to hear it; the other thread finds out
            self._line.send(word)
