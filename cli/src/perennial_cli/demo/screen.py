"""What a person sees of the demonstration: a line for each thing that happens, and below them what is going on now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from perennial_cli.demo.legs import Summary


class Screen:
    """Lines with the time since the start. The line that moves appears only on a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._status = console.status("") if console.is_terminal else None

    @contextmanager
    def live(self) -> Iterator[None]:
        if self._status is None:
            yield
            return
        with self._status:
            yield

    def chapter(self, title: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{title}", align="left")

    def say(self, text: str, *, good: bool | None = None) -> None:
        """One line. `good` marks it as a success or a failure."""
        mark = {True: "[green]✓[/] ", False: "[red]✗[/] ", None: "  "}[good]
        self.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/] {mark}{text}", highlight=False)

    def now(self, text: str) -> None:
        """What is going on at this moment."""
        if self._status is not None:
            self._status.update(text)

    def summary(self, summary: Summary) -> None:
        self.console.print()
        self.console.print(summary_table(summary))


def summary_table(summary: Summary) -> Table:
    """The legs with their times, and what each came to."""
    table = Table(
        title="The loop closed" if summary.facts.get("closed") else "The loop did not close", title_justify="left"
    )
    table.add_column("Leg")
    table.add_column("Time", justify="right")
    table.add_column("What came of it")
    for leg in summary.legs:
        table.add_row(leg.title, f"{leg.seconds:.1f} s", leg.outcome)
    table.add_section()
    table.add_row("[bold]Total", f"[bold]{summary.seconds:.1f} s", "")
    return table
