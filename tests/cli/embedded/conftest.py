"""Tiny real parts, and state folders whose processes are ended after the test whatever it did."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from perennial_cli.embedded import supervisor
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Part, Plan, Tcp
from perennial_cli.embedded.ports import free_ports
from perennial_cli.embedded.process import find
from perennial_cli.embedded.state import PlatformState, read_state

Launch = Callable[..., PlatformState]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    prepared = supervisor.home_at(tmp_path / "state")
    yield prepared
    supervisor.stop(prepared, timeout=30)


@pytest.fixture
def web() -> Callable[..., Part]:
    """Makes a part that serves HTTP on a free port."""

    def make(name: str = "web", **changes: object) -> Part:
        port = free_ports(1)[0]
        settings: dict[str, object] = {"ready": Tcp(port), "stop_seconds": 3.0, "address": f"http://127.0.0.1:{port}"}
        command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
        return Part(name, command, **{**settings, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def script() -> Callable[..., Part]:
    """Makes a part of a line of Python."""

    def make(name: str, code: str, **changes: object) -> Part:
        return Part(name, (sys.executable, "-c", code), **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def launch(home: Home) -> Launch:
    """Starts parts under a real supervisor and returns its state when all are ready."""

    def start(*parts: Part, timeout: float = 60.0) -> PlatformState:
        supervisor.launch(home, lambda: Plan(home.instance(), parts), timeout=timeout)
        state = supervisor.status(home)
        assert state is not None
        return state

    return start


@pytest.fixture
def kill_everything(home: Home) -> Callable[[], list[int]]:
    """kill -9 of the supervisor and of all that it started, as a power cut would."""

    def kill() -> list[int]:
        state = read_state(home)
        assert state is not None
        everyone = [state.supervisor, *state.processes]
        # By identity, never by number alone: numbers of processes that have ended belong to others soon.
        living = [process for process in map(find, everyone) if process]
        for process in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(living, timeout=10)
        return [one.pid for one in everyone]

    return kill
