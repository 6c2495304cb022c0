"""perennial why"""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    decision: Annotated[
        int | None, typer.Option(min=1, help="A row of the ledger; the newest alert or retraining when not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what happened last, why, and what came of it.

    What has moved or failed, with the figures of that time; what was decided, and why; how the run and its rollout went; how things stand
    now, and what you can do.

        perennial why flight-delays
        perennial why flight-delays --decision 12

    Exits 0 when all was told, 4 when a part was away and the rest was told.
    """
    import json

    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_cli.insight.asking import PART_AWAY
    from perennial_cli.insight.gather import tell
    from perennial_cli.insight.parts import parts_of, utc_now
    from perennial_cli.insight.screen import show
    from perennial_cli.paths import pipelines_dir
    from perennial_spec.load import discover

    discover(pipelines_dir()).get(name)
    with parts_of(connection.load()) as parts:
        story = tell(parts, name, decision, utc_now())
    if as_json:
        typer.echo(json.dumps(story.to_json(), indent=2))
    else:
        show(make_console(), story)
    if story.away:
        raise typer.Exit(PART_AWAY)
