"""How the state of the platform is shown."""

from __future__ import annotations

import time
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from perennial_cli.embedded.home import Home
from perennial_cli.embedded.state import PartState, PlatformState
from perennial_cli.embedded.supervisor import log_tail

STYLES = {
    "ready": "green",
    "done": "green",
    "waiting": "dim",
    "starting": "cyan",
    "restarting": "yellow",
    "unhealthy": "yellow",
    "failing": "bold red",
    "stopping": "yellow",
    "stopped": "dim",
}


class StartProgress:
    """Shows a platform that is starting: a live table on a terminal, a line per change elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._state: PlatformState | None = None
        self._last: dict[str, str] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # Twice a second: drawing competes with the parts for two cores.
            self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, state: PlatformState) -> None:
        if not self._last and state.healthy:
            return
        self._state = state
        if self._live:
            return
        for part in state.parts:
            if part.status != self._last.get(part.name) and part.status != "waiting":
                self._say(part)
            self._last[part.name] = part.status

    def _draw(self) -> Table | str:
        return table(self._state) if self._state else "starting the supervisor"

    def _say(self, part: PartState) -> None:
        waited = time.monotonic() - self._began
        took = f" after {part.took:.1f} s" if part.took is not None and part.settled else ""
        why = f": {part.message}" if part.message else ""
        self._console.print(f"{waited:6.1f} s  {part.name:<22}{part.status}{took}{why}", markup=False)


def table(state: PlatformState) -> Table:
    """All parts: state, pid, uptime, restarts, address."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "state", "pid", "uptime", "restarts", "address"):
        shown.add_column(column, justify="right" if column in ("pid", "uptime", "restarts") else "left", no_wrap=True)
    for part in state.parts:
        shown.add_row(
            part.name,
            f"[{STYLES[part.status]}]{part.status}[/]",
            str(part.pid or ""),
            _uptime(part),
            str(part.restarts),
            part.address or "",
        )
    return shown


def addresses(state: PlatformState) -> Table:
    """What can be opened."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    for part in state.parts:
        if part.address:
            shown.add_row(part.name, part.address)
    return shown


def failures(home: Home, state: PlatformState) -> list[str]:
    """Why parts are not running, with the last lines of their logs."""
    return [
        f"\n{part.name}: {part.message}\n{log_tail(home, part.name)}"
        for part in state.parts
        if part.status in ("failing", "restarting") and part.message
    ]


def answering(state: PlatformState | None, name: str) -> list[str]:
    """The address of a part, when it is ready and has one."""
    parts = state.parts if state else ()
    return [part.address for part in parts if part.name == name and part.status == "ready" and part.address]


def as_document(home: Home, state: PlatformState | None) -> dict[str, Any]:
    """The state for programs."""
    if state is None:
        return {"running": False, "healthy": False, "home": str(home.path), "parts": []}
    return {
        "running": True,
        "healthy": state.healthy,
        "home": str(home.path),
        "supervisor": {"pid": state.supervisor.pid, "started": state.started},
        "parts": [asdict(part) for part in state.parts],
    }


def _uptime(part: PartState) -> str:
    if part.pid is None or part.started is None:
        return ""
    seconds = int(time.time() - part.started)
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
