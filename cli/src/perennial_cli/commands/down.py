"""perennial down"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    home: Annotated[Path | None, typer.Option(help="State folder; .perennial in the project by default.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds before the supervisor itself is killed.")] = 90.0,
) -> None:
    """End the platform: everything that `perennial up` started, and nothing else. Its state stays for the next `up`."""
    from perennial_cli.console import make_console
    from perennial_cli.embedded import supervisor
    from perennial_cli.embedded.home import find_home

    console = make_console()
    stopped = supervisor.stop(find_home(home), timeout=timeout)
    if stopped.was_running:
        console.print("The platform has ended.")
    elif stopped.leftovers:
        console.print(
            f"The platform was not running; {stopped.leftovers} processes that it had left behind have ended."
        )
    else:
        console.print("The platform is not running.")
