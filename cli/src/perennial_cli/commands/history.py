"""perennial history"""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many events.")] = 20,
    before: Annotated[
        int | None, typer.Option(min=1, help="Only decisions with smaller numbers: the next page.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell what happened to a pipeline, the newest first: alerts, decisions and their reasons, runs step by step, outcomes.

    The same as the page /pipelines/NAME of the controller. `perennial why` tells the newest of it, with what has moved.

        perennial history flight-delays --limit 5
        perennial history flight-delays --before 40

    Exits 0 when all was told, 4 when a part was away and the rest was told.
    """
    import json

    from perennial_cli.clients.controller import Controller
    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_cli.history.lines import moments
    from perennial_cli.insight.asking import PART_AWAY

    story = Controller(connection.load()).timeline(name, limit, before)
    if as_json:
        typer.echo(json.dumps(story, indent=2))
    else:
        console = make_console()
        for text, style in moments(story):
            console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)
        if story["older"]:
            console.print(f"\nolder: perennial history {name} --before {story['older']}", markup=False)
    if story["away"]:
        raise typer.Exit(PART_AWAY)
