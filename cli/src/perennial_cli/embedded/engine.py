"""Runs a list of parts: in order, health-checked, restarted when they die, ended together with all their descendants."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psutil

from perennial_cli.embedded import process as processes
from perennial_cli.embedded.backoff import Backoff
from perennial_cli.embedded.graph import levels
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Part, Plan
from perennial_cli.embedded.probe import is_ready
from perennial_cli.embedded.state import PartState

_log = logging.getLogger(__name__)

TICK = 0.1
"""Seconds between looks at a process that is starting, and at one that should have ended."""
HEALTH_PERIOD = 10.0
"""Seconds between health checks of a part that is ready."""
HEALTH_MISSES = 3
"""So many failed checks in a row make a part unhealthy."""


class Runner:
    """The life of one part."""

    def __init__(self, part: Part, home: Home, instance: str, backoff: Backoff) -> None:
        self.part = part
        self.state = PartState(part.name, part.kind, optional=part.optional, address=part.address)
        self.was_ready = asyncio.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.descendants: dict[int, psutil.Process] = {}
        self._home = home
        self._instance = instance
        self._backoff = backoff
        self._again = asyncio.Event()

    async def live(self, needs: Sequence[asyncio.Event]) -> None:
        """Wait for what the part needs, then run it until a task is done; a service runs until this is cancelled."""
        for need in needs:
            await need.wait()
        failures = 0
        while True:
            uptime = await self._run_once()
            if self.state.status == "done":
                return
            failures = self._backoff.failures(failures, uptime)
            alarming = failures >= self._backoff.alarming
            self._set(status="failing" if alarming else "restarting", pid=None)
            self._again.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), self._backoff.delay(failures))
            self._set(restarts=self.state.restarts + 1)

    def retry_now(self) -> None:
        """Do not wait any longer before the next restart."""
        self._again.set()

    async def stop(self) -> None:
        """End the process and its descendants: politely, then not."""
        if self.process is None or self.process.poll() is not None:
            await self._end_leftovers()
            self._set(status="stopped", pid=None)
            return
        self._set(status="stopping")
        self._note_descendants()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(self.part.stop_signal)
        deadline = time.monotonic() + self.part.stop_seconds
        while self.process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(TICK)
        if self.process.poll() is None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        await self._end_leftovers()
        self._set(status="stopped", pid=None)

    def note(self, tree: Sequence[psutil.Process]) -> None:
        """Remember the descendants among `tree`, so that they can be ended after their parent has died."""
        self.descendants = {process.pid: process for process in tree if processes.is_alive(process)}

    async def _run_once(self) -> float:
        """Start the process and stay until it has ended and nothing of it is left. Returns its uptime in seconds."""
        started = time.time()
        self._set(status="starting", started=started, took=None, message="")
        try:
            process = processes.spawn(self.part, self._home.log(self.part.name), self._home.work, self._instance)
        except OSError as error:
            self._set(message=f"cannot be started: {error}")
            return 0.0
        self.process = process
        self._set(pid=process.pid)
        began = time.monotonic()
        await self._watch(process, started)
        uptime = time.monotonic() - began
        await self._end_leftovers()
        code = process.returncode
        if self.part.kind == "task" and code == 0:
            self._set(status="done", pid=None, took=uptime)
            self.was_ready.set()
        elif not self.state.message:
            self._set(message=_ending(code))
        return uptime

    async def _watch(self, process: subprocess.Popen[bytes], started: float) -> None:
        """Until the process ends: find out when it becomes ready, and whether it stays so."""
        if not await self._become_ready(process, started):
            return
        misses, next_check = 0, time.monotonic() + HEALTH_PERIOD
        while process.poll() is None:
            await asyncio.sleep(TICK * 2)
            if self.part.ready is None or time.monotonic() < next_check:
                continue
            answers = await asyncio.to_thread(is_ready, self.part.ready, started)
            misses = 0 if answers else misses + 1
            self._set(status="unhealthy" if misses >= HEALTH_MISSES else "ready")
            next_check = time.monotonic() + HEALTH_PERIOD

    async def _become_ready(self, process: subprocess.Popen[bytes], started: float) -> bool:
        deadline = time.monotonic() + self.part.ready_seconds
        began = time.monotonic()
        while process.poll() is None:
            if self.part.kind == "service" and await self._answers(started) and process.poll() is None:
                self._set(status="ready", took=time.monotonic() - began)
                self.was_ready.set()
                return True
            if time.monotonic() > deadline:
                self._set(message=f"was not ready within {self.part.ready_seconds:.0f} s")
                self._note_descendants()
                process.kill()
                await asyncio.to_thread(process.wait)
            await asyncio.sleep(TICK)
        return False

    async def _answers(self, started: float) -> bool:
        return self.part.ready is None or await asyncio.to_thread(is_ready, self.part.ready, started)

    def _note_descendants(self) -> None:
        if self.process is not None:
            self.note(processes.descendants(self.process.pid))

    async def _end_leftovers(self) -> None:
        """End what the process left behind: descendants seen before it died, and those of its session."""
        if self.process is None:
            return
        children = psutil.Process().children(recursive=True)
        left = {**self.descendants, **{one.pid: one for one in processes.session_members(self.process.pid, children)}}
        left.pop(self.process.pid, None)
        self.descendants = {}
        if left:
            await asyncio.to_thread(processes.terminate, list(left.values()), 3.0)
        # Its number may belong to somebody else from now on.
        self.process = None

    def _set(self, **changes: object) -> None:
        before = self.state.status
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        if self.state.status != before:
            _log.info(
                "%s is %s%s", self.part.name, self.state.status, f": {self.state.message}" if self.state.message else ""
            )


class Engine:
    """All parts of a plan."""

    def __init__(self, plan: Plan, home: Home, backoff: Backoff | None = None) -> None:
        """
        Raises:
            PlatformError: the parts' needs cannot be met.
        """
        self._levels = levels(plan.parts)
        self._runners: Mapping[str, Runner] = {
            part.name: Runner(part, home, plan.instance, backoff or Backoff()) for part in plan.parts
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, look after it until `stop` is set, and end it in the reverse order."""
        lives = [
            asyncio.create_task(runner.live([self._runners[need].was_ready for need in runner.part.needs]))
            for runner in self._runners.values()
        ]
        stopped = asyncio.create_task(stop.wait())
        try:
            # A life ends only when its task is done, or with a programming error, which must not go unseen.
            waiting = {stopped, *lives}
            while not stopped.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
            for wave in reversed(self._levels):
                await asyncio.gather(*(self._runners[name].stop() for name in wave))

    def states(self) -> tuple[PartState, ...]:
        return tuple(runner.state for runner in self._runners.values())

    def retry_now(self) -> None:
        """Start parts that wait for their next restart at once."""
        for runner in self._runners.values():
            runner.retry_now()

    def pids(self) -> set[int]:
        """Processes that the engine started itself and collects itself."""
        return {runner.process.pid for runner in self._runners.values() if runner.process is not None}

    def observe(self) -> tuple[processes.Seen, ...]:
        """Look at all descendants: remember whose they are, and return them."""
        owners = {
            runner.process.pid: runner
            for runner in self._runners.values()
            if runner.process is not None and runner.process.poll() is None
        }
        parents: dict[int, int] = {}
        living: dict[int, psutil.Process] = {}
        found: list[processes.Seen] = []
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if processes.is_alive(one):
                    found.append(processes.seen(one))
                    living[one.pid] = one
                    parents[one.pid] = one.ppid()
        for pid, runner in owners.items():
            runner.note([one for one in living.values() if _is_below(one.pid, pid, parents)])
        return tuple(found)


def _is_below(pid: int, ancestor: int, parents: Mapping[int, int]) -> bool:
    above = parents.get(pid)
    while above is not None and above != ancestor:
        above = parents.get(above)
    return above == ancestor


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
