"""Several model servers on one port, and who looks after them.

    supervisor --socket, line, slot--> worker 0     binds the port and answers nobody itself
                                   `-> worker 1     ...

The first worker answers at once, ready or not, so that health can be asked. The others follow when it has its models: what it has
fetched and flattened they find done. From then on a worker takes connections when it has its models, unless nobody else answers.
All accept from one socket, so that a worker that ends, however it ends, leaves no connection waiting that another would not take.

A worker that ends unasked is followed by another at its post, after a pause that doubles while they end early. SIGHUP puts a new worker
at each post, one after the other, the old one ending when the new one answers. SIGTERM and SIGINT end all. Should the supervisor
itself be killed, the workers' lines end, and so do they.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Coroutine
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from perennial_serving.acceptor import Board
from perennial_serving.held import hold, sweep
from perennial_serving.listening import listen, reserve
from perennial_serving.post import ACCEPT, DRAIN, END, LEAVE, Roll
from perennial_serving.settings import Settings
from perennial_serving.worker_process import WorkerProcess
from perennial_spec.errors import PlatformError

log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 30.0
_EARLY_SECONDS = 30.0
"""A worker that ends within so long has ended early."""
_PREFIX = "perennial-serving-"
_MEMORY = Path("/dev/shm")  # noqa: S108 (what is made there is private)


class Supervisor:
    """Looks after the workers of one port.

    Args:
        listener: bound; workers inherit it.
        folder: private to this supervisor and its workers.
    """

    def __init__(self, settings: Settings, listener: socket.socket, folder: Path) -> None:
        self._settings, self._listener, self._folder = settings, listener, folder
        self._board = Board(folder)
        self._workers: set[WorkerProcess] = set()
        """All that live, also those that are about to end."""
        self._renewals: list[asyncio.Queue[asyncio.Future[bool]]] = []
        """By post; whom to tell when the worker there is a new one."""
        self._first_loaded = asyncio.Event()
        self._ending = asyncio.Event()
        self._status = 0
        self._renewing: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Until all workers have ended. 0 when they were asked to, otherwise what the first ended with."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._end, sig)
        loop.add_signal_handler(signal.SIGHUP, self._renew)
        loop.add_signal_handler(signal.SIGCHLD, self._look)
        self._renewals = [asyncio.Queue() for _ in range(self._settings.workers)]
        await asyncio.gather(*(self._keep(post) for post in range(self._settings.workers)))
        while self._workers:  # those that were replaced
            await next(iter(self._workers)).ended
        return self._status

    # -- a post --

    async def _keep(self, post: int) -> None:
        """See that there is a worker at this post, until the end."""
        if post:
            await _any(self._ending.wait(), self._first_loaded.wait())
        pause = _FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            started = time.monotonic()
            try:
                worker = await self._last_of_post(post)
                what = f"worker {worker.slot} has ended, {worker.how}"
                if self._ending.is_set() or self._gave_up(worker, post):
                    return
            except OSError as error:
                what = f"a worker cannot be started ({error.strerror})"
            pause = _FIRST_PAUSE_SECONDS if time.monotonic() - started > _EARLY_SECONDS else pause
            log.error("%s; another follows in %.1f s", what, pause)
            await _any(self._ending.wait(), asyncio.sleep(pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _last_of_post(self, post: int) -> WorkerProcess:
        """Start a worker, replace it when it is to be renewed, and return the one that ended unasked."""
        worker, renewals = self._start(), self._renewals[post]
        while True:
            renewal = asyncio.create_task(renewals.get())
            await _any(renewal, worker.ended)
            if renewal.done():
                old, worker = worker, await self._replaced(worker)
                renewal.result().set_result(worker is not old)
            else:
                renewal.cancel()
                return worker

    async def _replaced(self, old: WorkerProcess) -> WorkerProcess:
        """The worker that has taken the place of `old`; `old` itself when no other came up."""
        try:
            new = self._start()
        except OSError as error:
            log.error("no worker can be started (%s); worker %d goes on", error.strerror, old.slot)  # noqa: TRY400
            return old
        await _any(new.loaded.wait(), new.ended, asyncio.sleep(self._settings.load_timeout_seconds))
        if self._ending.is_set():
            return new
        if not new.loaded.is_set():
            log.error("worker %d does not come up; worker %d goes on", new.slot, old.slot)
            new.kill()
            return old
        old.say(LEAVE)
        asyncio.get_running_loop().call_later(self._settings.end_seconds, old.kill)
        await old.ended
        return new

    def _gave_up(self, worker: WorkerProcess, post: int) -> bool:
        """The first worker that says why it cannot start would say so again."""
        status = worker.ended.result()
        if post or status <= 0 or worker.answered or self._first_loaded.is_set():
            return False
        self._status = status
        self._ending.set()
        return True

    # -- all of them --

    def _start(self) -> WorkerProcess:
        taken = {worker.slot for worker in self._workers}
        slot = next(slot for slot in count() if slot not in taken)
        worker = WorkerProcess(slot, self._folder, self._listener, self._changed)
        self._workers.add(worker)
        worker.ended.add_done_callback(lambda _: self._gone(worker))
        self._changed()
        if self._ending.is_set():
            worker.say(END)
        return worker

    def _look(self) -> None:
        """Some worker has ended."""
        for worker in list(self._workers):
            worker.look()

    def _gone(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        self._board.clear(worker.slot)
        self._changed()

    def _changed(self) -> None:
        """Take note of what has become of a worker."""
        answering = sum(worker.answering for worker in self._workers)
        if any(worker.loaded.is_set() for worker in self._workers):
            self._first_loaded.set()
        if not answering:
            for worker in self._workers:
                worker.say(ACCEPT)
        try:
            Roll(os.getpid(), tuple(worker.pid for worker in self._workers), answering).write(self._folder)
        except OSError as error:  # /metrics is wrong about the workers for a while, and they still answer
            log.warning("who answers cannot be written down: %s", error.strerror)

    def _renew(self) -> None:
        """Put a new worker at each post, one after the other."""
        if self._renewing is None or self._renewing.done():
            log.info("new workers take the place of the old, one after the other")
            self._renewing = asyncio.create_task(self._renew_all())

    async def _renew_all(self) -> None:
        new = 0
        for renewals in self._renewals:
            done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            renewals.put_nowait(done)
            await _any(done, self._ending.wait())
            new += done.done() and done.result()
        log.info("%d of %d workers are new", new, len(self._renewals))

    def _end(self, sig: signal.Signals) -> None:
        """Ask all workers to end; who is asked again is told by the signal itself, which means haste."""
        self._listener.close()  # the last worker to stop takes what waits; on a socket that we held open it would wait for nobody
        for worker in self._workers:
            if self._ending.is_set():
                worker.signal(sig)
            else:
                worker.say(DRAIN if sig == signal.SIGTERM else END)
                asyncio.get_running_loop().call_later(self._settings.end_seconds, worker.kill)
        self._ending.set()


async def _any(*events: asyncio.Future[Any] | Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them has happened."""
    ours = [asyncio.ensure_future(event) for event in events if not isinstance(event, asyncio.Future)]
    theirs = [event for event in events if isinstance(event, asyncio.Future)]
    await asyncio.wait([*ours, *theirs], return_when=asyncio.FIRST_COMPLETED)
    for each in ours:
        each.cancel()


def supervise(settings: Settings) -> int:
    """Serve with several workers until SIGTERM or SIGINT. 0 when they ended in order; 1 when the first could not start.

    Raises:
        PlatformError: a port is taken, or there is nowhere to count.
    """
    listener, reserved = listen(settings), reserve(settings)
    folder = _private_folder()
    try:
        with listener, reserved or nullcontext():
            return asyncio.run(Supervisor(settings, listener, folder).run())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    """In memory, where there is such a place: what is counted there must not be written to a disk all the time.

    Held for as long as this process lives; what others left, that were killed with all their workers, is removed.
    """
    root = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    sweep(list(root.glob(f"{_PREFIX}*")))
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        hold(folder)
        return folder
    except OSError as error:
        raise PlatformError(
            f"the workers have no place to count: {error.strerror}",
            where=error.filename or tempfile.gettempdir(),
            expected="a folder for temporary files that can be written",
            next="make room there, or set TMPDIR",
        ) from None
