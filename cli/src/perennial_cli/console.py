"""How the command line speaks: rich where there is a terminal, plain text elsewhere and with NO_COLOR."""

from __future__ import annotations

from rich.console import Console

from perennial_spec.errors import PerennialError


def make_console(*, stderr: bool = False) -> Console:
    """A console for results (stdout), or for progress and errors (stderr)."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def show_error(error: PerennialError) -> None:
    """What happened, where, what was expected, what to do next."""
    console = make_console(stderr=True)
    console.print("error:", style="bold red", end=" ")
    console.print(str(error), markup=False)
