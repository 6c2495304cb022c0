"""perennial status"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NOT_RUNNING = 3
UNHEALTHY = 1


def command(
    name: Annotated[str | None, typer.Argument(help="With --watch: only this pipeline.", show_default=False)] = None,
    home: Annotated[Path | None, typer.Option(help="State folder; .perennial in the project by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow pipelines, runs and rollouts live; Ctrl-C ends.")
    ] = False,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="With --watch: end when no run is active any more.")
    ] = False,
) -> None:
    """Show the platform's parts; with --watch, every pipeline, and each step of the runs that are active, live.

        perennial status
        perennial status --watch
        perennial status flight-delays --watch --until-done

    Exit code 0: all is healthy; 1: a part is not; 3: the platform is not running.
    """
    if watch:
        follow(name, until_done=until_done)
        return
    if name is not None or until_done:
        raise typer.BadParameter("NAME and --until-done go with --watch")
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


def follow(name: str | None, *, until_done: bool) -> None:
    """Show what the pipelines do until it is interrupted, or done.

    Raises:
        PipelineNotFound: there is none of that name.
    """
    from contextlib import suppress

    from perennial_cli.clients.controller import Controller
    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_cli.history.watch import Watch
    from perennial_cli.paths import pipelines_dir
    from perennial_spec.load import discover

    if name is not None:
        discover(pipelines_dir()).get(name)
    with suppress(KeyboardInterrupt):
        Watch(Controller(connection.load()), name, until_done).run(make_console())
