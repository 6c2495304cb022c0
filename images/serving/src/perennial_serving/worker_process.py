"""A worker, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from signal import Signals

from perennial_serving.post import ANSWERS, LOADED, Post


class WorkerProcess:
    """A process, just started.

    Args:
        changed: called when it says something.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, slot: int, folder: Path, listener: socket.socket, changed: Callable[[], None]) -> None:
        self.slot = slot
        self.answered = False
        """It takes connections, or did."""
        self.loaded = asyncio.Event()
        """It has all that the routes need."""
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit status; negative for a signal."""
        self._changed = changed
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        with theirs:
            post = Post(slot, str(folder), listener.fileno(), theirs.fileno())
            self._process = subprocess.Popen(
                # -P: what lies in the working directory must not take the place of a library.
                [sys.executable, "-P", "-m", "perennial_serving.worker", json.dumps(asdict(post))],
                stdin=subprocess.DEVNULL,
                pass_fds=(post.listener, post.line),
                process_group=0,  # Ctrl-C is for the supervisor, who passes it on
            )
        asyncio.get_running_loop().add_reader(self._line, self._hear)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def answering(self) -> bool:
        return self.answered and not self.ended.done()

    @property
    def how(self) -> str:
        """How it has ended."""
        status = self.ended.result()
        return f"by {Signals(-status).name}" if status < 0 else f"with exit status {status}"

    def look(self) -> None:
        """See whether it has ended."""
        status = self._process.poll()
        if status is not None and not self.ended.done():
            self._hear()  # what it said last
            asyncio.get_running_loop().remove_reader(self._line)
            self._line.close()
            self.ended.set_result(status)

    def say(self, word: bytes) -> None:
        """One of the words of `post`."""
        with suppress(OSError):  # it is about to end
            self._line.send(word)

    def signal(self, sig: int) -> None:
        self._process.send_signal(sig)

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()

    def _hear(self) -> None:
        try:
            words = self._line.recv(16)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:  # its end is seen by `look`
            asyncio.get_running_loop().remove_reader(self._line)
        if ANSWERS in words:
            self.answered = True
        if LOADED in words:
            self.loaded.set()
        self._changed()
