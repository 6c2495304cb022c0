"""perennial resume"""

from __future__ import annotations

import getpass
from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(help="Name of the pipeline; or --all.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="End the pause of all pipelines.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")] = "resumed by hand",
) -> None:
    """Let alerts start retrainings again. Those that were held and still fire are decided at once.

    Ends a pause, and closes the breaker that opens after too many retrainings in vain.

    A pipeline that was paused by name stays paused when `--all` ends the pause of all, and the other way round: what is left is shown.
    """
    from perennial_cli.clients.controller import Controller
    from perennial_cli.commands.pause import one_or_all, show
    from perennial_cli.embedded import connection

    pipeline = one_or_all(name, all_, "resume")
    show(Controller(connection.load()).resume(pipeline, reason, getpass.getuser()), pipeline)
