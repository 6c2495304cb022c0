"""Following pipelines live: redrawn in a terminal, a line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perennial_cli.history import lines
from perennial_spec.errors import PlatformError

if TYPE_CHECKING:
    from rich.console import Console

    from perennial_cli.clients.controller import Controller

SECONDS = 2.0
"""Between two looks."""
AWAY_SECONDS = 60.0
"""A controller that is away for longer is told as an error."""
_STEPS = 12
"""The newest steps of each active run are shown."""


@dataclass
class Watch:
    """Looks again and again at one pipeline, or at all."""

    controller: Controller
    pipeline: str | None
    until_done: bool
    """End when no run is active any more."""
    sleep: Callable[[float], None] = time.sleep
    _told: set[lines.Line] = field(default_factory=set)

    def run(self, console: Console) -> None:
        """Until it is interrupted, or done.

        Raises:
            PlatformError: the controller stays away.
        """
        if console.is_terminal:
            self._redraw(console)
        else:
            for found in self._looks():
                self._tell_changes(console, found)

    def _redraw(self, console: Console) -> None:
        from rich.live import Live
        from rich.text import Text

        with Live(console=console, auto_refresh=False) as live:
            for found in self._looks():
                text = Text()
                for line, style in [*found, ("", ""), ("Ctrl-C ends this.", "dim")]:
                    text.append(line + "\n", style=style)
                live.update(text, refresh=True)

    def _tell_changes(self, console: Console, found: list[lines.Line]) -> None:
        for line in found:
            if line not in self._told:
                console.print(line[0], markup=False, highlight=False, soft_wrap=True)
        self._told = set(found)

    def _looks(self) -> Iterator[list[lines.Line]]:
        answered = time.monotonic()
        while True:
            try:
                found, is_active = self._look()
                answered = time.monotonic()
            except PlatformError as error:
                if time.monotonic() - answered > AWAY_SECONDS:
                    raise
                found, is_active = [(f"the controller does not answer: {error.what}", "yellow")], True
            yield found
            if self.until_done and not is_active:
                return
            self.sleep(SECONDS)

    def _look(self) -> tuple[list[lines.Line], bool]:
        overview = self.controller.overview()
        if self.pipeline is not None:
            chosen = [each for each in overview["pipelines"] if each["pipeline"] == self.pipeline]
            overview = {**overview, "pipelines": chosen}
        found, is_active = list(lines.glances(overview)), False
        for each in overview["pipelines"]:
            if each["run"]:
                is_active = True
                found += self._steps(each["pipeline"])
        return found, is_active

    def _steps(self, pipeline: str) -> Iterator[lines.Line]:
        run = lines.active(self.controller.timeline(pipeline, 20))
        if run is None:
            return
        yield "", ""
        yield f"{pipeline}, run {run['run_id']}", "bold"
        for step in run["steps"][-_STEPS:]:
            yield from lines.step_lines(step)
