"""Processes and their descendants: spawn, recognise, end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from perennial_cli.embedded.part import Part
from perennial_spec.platform import Platform, variable

INSTANCE_VARIABLE = "PERENNIAL_INSTANCE"
CLOCK_SLACK = 1.5
"""Seconds: the creation time of a process is derived from the boot time, which the kernel may correct."""

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Seen:
    """A process as it was seen. The creation time tells it from a later one with the same pid."""

    pid: int
    created: float


def seen(process: psutil.Process) -> Seen:
    return Seen(process.pid, process.create_time())


def find(one: Seen) -> psutil.Process | None:
    """The process that was seen, unless it has ended."""
    try:
        process = psutil.Process(one.pid)
        same = abs(process.create_time() - one.created) < CLOCK_SLACK
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def child_environment(base: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a part: `base` without what would confuse it, and `extra`."""
    kept = {name: value for name, value in base.items() if not _confuses(name)}
    no_proxy = [kept.get("no_proxy") or kept.get("NO_PROXY") or "", "127.0.0.1", "localhost"]
    kept["no_proxy"] = kept["NO_PROXY"] = ",".join(filter(None, no_proxy))
    return {**kept, **extra}


def _confuses(name: str) -> bool:
    # The user's own Airflow, MLflow or libpq settings, or another platform's endpoints, would point the parts elsewhere;
    # without byte code, each start of Airflow compiles thousands of files again.
    return name.startswith(("AIRFLOW_", "MLFLOW_", "_MLFLOW_", "PG")) or name in _ENDPOINTS or name in _OURS_OR_HARMFUL


_ENDPOINTS = frozenset(variable(field.name) for field in fields(Platform))
_OURS_OR_HARMFUL = frozenset(
    {
        "PERENNIAL_HOME",
        "PERENNIAL_HOST",
        "PERENNIAL_PORT",
        INSTANCE_VARIABLE,
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONSTARTUP",
        "PYTHONINSPECT",
    }
)


def spawn(part: Part, log: Path, folder: Path, instance: str) -> subprocess.Popen[bytes]:
    """Start a part in a session of its own, its output appended to `log`.

    Raises:
        OSError: the program cannot be started.
    """
    environment = child_environment(os.environ, {**part.environment, INSTANCE_VARIABLE: instance})
    with log.open("ab") as stream:
        return subprocess.Popen(
            part.command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies (Linux; elsewhere they go to init)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(of: int) -> list[psutil.Process]:
    """Children, grandchildren and so on."""
    try:
        return psutil.Process(of).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


class Reaper:
    """Collects adopted children that have ended, so that they do not stay as zombies.

    Only after a while: a child of our own that has just ended (a part, the command of a health check) is collected by who
    started it, and to take its exit code away would make that 0.
    """

    PATIENCE = 30.0
    """Seconds that a zombie is left to who may be waiting for it."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def look(self, now: float, known: Iterable[int] = ()) -> list[int]:
        """Collect what has been a zombie for long; `known` are collected elsewhere. Returns the collected pids."""
        zombies = {child.pid for child in psutil.Process().children() if _is_zombie(child)} - set(known)
        self._since = {pid: self._since.get(pid, now) for pid in zombies}
        old = [pid for pid, since in self._since.items() if now - since >= self.PATIENCE]
        for pid in old:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return old


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def session_members(leader: int, among: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those of `among` that belong to the session of `leader`, which may have ended."""
    members = []
    for process in among:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader:
                members.append(process)
    return members


def marked(instance: str) -> list[psutil.Process]:
    """All processes of this machine that carry the instance in their environment, but not this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(INSTANCE_VARIABLE) == instance:
                found.append(process)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def terminate(processes: Sequence[psutil.Process], grace: float) -> int:
    """SIGTERM, then after `grace` seconds SIGKILL. Returns how many processes were alive."""
    living = [process for process in processes if is_alive(process)]
    for process in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in _wait(living, grace):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(living, max(grace, 5.0))
    return len(living)


def _wait(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that are still alive after so many seconds."""
    deadline = time.monotonic() + seconds
    living = [process for process in processes if is_alive(process)]
    while living and time.monotonic() < deadline:
        time.sleep(0.05)
        living = [process for process in living if is_alive(process)]
    return living
