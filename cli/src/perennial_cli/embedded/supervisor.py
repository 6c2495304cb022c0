"""Start, stop and ask the embedded platform. What `perennial up | down | status` and tests call.

`up` starts the whole platform; `launch` starts any list of parts, and is what `up` is made of.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from perennial_cli.embedded import process as processes
from perennial_cli.embedded.graph import levels
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.lock import held, is_held
from perennial_cli.embedded.logs import tail
from perennial_cli.embedded.part import Plan
from perennial_cli.embedded.state import PartState, PlatformState, read_state, write_plan
from perennial_spec.errors import PlatformError

SUPERVISOR = "supervisor"
"""Name of the supervisor's own log."""
LOG_LINES = 15
"""Lines of a part's log that an error shows."""
START_SECONDS = 30.0
"""How long the supervisor itself may take before it reports."""

Progress = Callable[[PlatformState], None]


@dataclass(frozen=True)
class Stopped:
    """What `stop` found."""

    was_running: bool
    leftovers: int
    """Processes that a supervisor which was killed had left behind, and that were ended now."""


def is_running(home: Home) -> bool:
    """Whether a supervisor lives in this state folder."""
    return is_held(home.lock)


def status(home: Home) -> PlatformState | None:
    """What the supervisor sees now; None when none is running."""
    return read_state(home) if is_running(home) else None


def launch(home: Home, plan: Callable[[], Plan], *, timeout: float = 300.0, progress: Progress | None = None) -> bool:
    """Start a supervisor unless one is running, and wait until all its parts are ready.

    Args:
        home: state folder, prepared.
        plan: makes what to run; called only when nothing is running and nothing is left of earlier processes.
        timeout: seconds.
        progress: called with each new state.

    Returns:
        True when this call started the supervisor, False when it was running already.

    Raises:
        PlatformError: a part dies again and again, the supervisor dies, or the time is over. What runs is left running.
    """
    with held(home.up_lock, wait=timeout) as mine:
        if not mine:
            raise PlatformError(
                "another `perennial up` is still starting this platform",
                where=str(home.path),
                next="wait for it, or look with: perennial status",
            )
        known = status(home)
        if known is not None:
            _retry(known)
        else:
            end_leftovers(home)
            _start(home, plan())
    wait_until_ready(home, timeout=timeout, progress=progress, known=known)
    return known is None


def wait_until_ready(
    home: Home, *, timeout: float, progress: Progress | None = None, known: PlatformState | None = None
) -> PlatformState:
    """Wait for a platform that is starting. Parts that are failing just as in `known` get the time to try once more.

    Raises:
        PlatformError: as `launch`.
    """
    began = time.monotonic()
    last: PlatformState | None = None
    while True:
        state = status(home)
        if state is not None and state != last:
            last = state
            if progress:
                progress(state)
            if state.healthy:
                return state
            _raise_for_failing(home, [part for part in state.parts if not known or part not in known.parts])
        waited = time.monotonic() - began
        if not is_running(home) and waited > 0.5:
            raise _supervisor_died(home)
        if waited > timeout:
            raise _too_slow(home, last, timeout)
        time.sleep(0.1)


def stop(home: Home, *, timeout: float = 90.0) -> Stopped:
    """End the supervisor, all its parts and all that they started. Returns when nothing of it is left."""
    running = is_running(home)
    state = _first_state(home) if running else None
    supervisor = processes.find(state.supervisor) if state else None
    if supervisor:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.send_signal(signal.SIGTERM)
        if not _ends(supervisor, timeout):
            processes.terminate([supervisor], 0.0)
    return Stopped(running, end_leftovers(home))


def _first_state(home: Home) -> PlatformState | None:
    """What a running supervisor wrote; one that has only just started needs a moment for it."""
    deadline = time.monotonic() + START_SECONDS
    while (state := read_state(home)) is None and is_running(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    return state


def _ends(process: psutil.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while processes.is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def end_leftovers(home: Home) -> int:
    """End processes of a supervisor that was killed. Only while none is running. Returns how many there were."""
    state = read_state(home)
    if state is None and not (home.path / "instance").exists():
        return 0
    found = {process.pid: process for process in processes.marked(home.instance())}
    for one in state.processes if state else ():
        process = processes.find(one)
        if process:
            for member in (process, *processes.descendants(process.pid)):
                found[member.pid] = member
    ended = processes.terminate(list(found.values()), 10.0)
    home.state.unlink(missing_ok=True)
    return ended


def log_tail(home: Home, part: str, lines: int = LOG_LINES) -> str:
    """The last lines of a part's log, indented."""
    return "\n".join(f"    {line}" for line in tail(home.log(part), lines))


def _start(home: Home, plan: Plan) -> None:
    levels(plan.parts)
    write_plan(home, plan)
    with home.log(SUPERVISOR).open("ab") as log:
        starter = subprocess.Popen(
            [sys.executable, "-m", "perennial_cli.embedded.daemon", str(home.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.work,
            env=processes.child_environment(os.environ, {}),
            start_new_session=True,
        )
    starter.wait(timeout=START_SECONDS)
    deadline = time.monotonic() + START_SECONDS
    while status(home) is None:
        if time.monotonic() > deadline:
            raise _supervisor_died(home)
        if not is_running(home) and time.monotonic() > deadline - START_SECONDS + 10.0:
            raise _supervisor_died(home)
        time.sleep(0.05)


def _retry(state: PlatformState) -> None:
    supervisor = processes.find(state.supervisor)
    if supervisor and not state.healthy:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.send_signal(signal.SIGHUP)


def _raise_for_failing(home: Home, parts: Sequence[PartState]) -> None:
    for part in parts:
        if part.status == "failing" and not part.optional:
            raise PlatformError(
                f"part {part.name!r} dies again and again: {part.message}",
                where=str(home.log(part.name)),
                expected="a part that keeps running",
                next=f"read its last lines, mend the cause, then: perennial up\n{log_tail(home, part.name)}",
            )


def _supervisor_died(home: Home) -> PlatformError:
    return PlatformError(
        "the supervisor has ended",
        where=str(home.log(SUPERVISOR)),
        expected="a supervisor that runs until `perennial down`",
        next=f"start it again with: perennial up\n{log_tail(home, SUPERVISOR)}",
    )


def _too_slow(home: Home, state: PlatformState | None, timeout: float) -> PlatformError:
    late = [part for part in state.parts if not part.settled and not part.optional] if state else []
    first = next((part for part in late if part.status != "waiting"), None)
    lines = f"\n{log_tail(home, first.name)}" if first else ""
    return PlatformError(
        f"the platform was not ready within {timeout:.0f} s: {', '.join(_in_words(part) for part in late)}",
        where=str(home.path),
        expected="all parts ready",
        next=f"it keeps starting; look with: perennial status{lines}",
    )


def _in_words(part: PartState) -> str:
    return f"{part.name} is {part.status}{f' ({part.message})' if part.message else ''}"


def home_at(path: Path) -> Home:
    """A prepared state folder."""
    home = Home(path)
    home.prepare()
    return home
