"""perennial up"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    home: Annotated[Path | None, typer.Option(help="State folder; .perennial in the project by default.")] = None,
    port_base: Annotated[
        int | None,
        typer.Option(
            help="First of 8 consecutive ports; 0 takes free ones. Default: as last time, at first the usual ports."
        ),
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="A part that is not started; may be repeated.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until it must be healthy.")] = 300.0,
) -> None:
    """Start the platform on this machine and wait until it is healthy.

    PostgreSQL, Airflow, MLflow, Prometheus, Alertmanager, the model server, the controller and the quality exporter run in the
    background, on 127.0.0.1, until `perennial down`. When it runs already, nothing is started.
    """
    from perennial_cli.console import make_console
    from perennial_cli.embedded import supervisor
    from perennial_cli.embedded.home import find_home, find_project
    from perennial_cli.embedded.up import Options, start
    from perennial_cli.embedded.view import StartProgress, addresses

    state_folder = find_home(home)
    console = make_console()
    options = Options(find_project(), state_folder.path, port_base, frozenset(without or ()), timeout)
    try:
        with StartProgress(console) as progress:
            started = start(options, progress)
    except KeyboardInterrupt:
        console.print("\nIt goes on starting. Look with: perennial status. End it with: perennial down.")
        raise typer.Exit(130) from None
    state = supervisor.status(state_folder)
    if state is None:
        return
    if not started:
        console.print(f"The platform is running already (supervisor pid {state.supervisor.pid}).")
    console.print(addresses(state))
    console.print("End it with: perennial down")
