"""perennial status"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NOT_RUNNING = 3
UNHEALTHY = 1


def command(
    home: Annotated[Path | None, typer.Option(help="State folder; .perennial in the project by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the platform's parts.

    Exit code 0: all is healthy; 1: a part is not; 3: the platform is not running.
    """
    import json

    from perennial_cli.clients.controller import warnings
    from perennial_cli.console import make_console
    from perennial_cli.embedded import supervisor
    from perennial_cli.embedded.home import find_home
    from perennial_cli.embedded.view import answering, as_document, failures, table

    folder = find_home(home)
    state = supervisor.status(folder)
    known = [text for address in answering(state, "controller") for text in warnings(address)]
    if as_json:
        typer.echo(json.dumps({**as_document(folder, state), "warnings": known}, indent=2))
    elif state is None:
        make_console().print(f"The platform is not running ({folder.path}). Start it with: perennial up")
    else:
        console = make_console()
        console.print(table(state))
        for text in failures(folder, state):
            console.print(text, markup=False)
        for text in known:
            console.print(f"\nwarning: {text}", markup=False, style="yellow")
    if state is None:
        raise typer.Exit(NOT_RUNNING)
    if not state.healthy:
        raise typer.Exit(UNHEALTHY)
