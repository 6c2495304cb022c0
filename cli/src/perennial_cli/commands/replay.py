"""perennial replay"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

_DAY = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    start: Annotated[
        datetime, typer.Option("--from", formats=_DAY, help="First moment of the data that is sent, UTC.")
    ],
    end: Annotated[datetime, typer.Option("--to", formats=_DAY, help="The moment before which it ends, UTC.")],
    per_second: Annotated[str, typer.Option(help="Time of the data that passes in one second.")] = "6h",
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Rows per request at most.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests at a time.")] = 4,
    lake: Annotated[
        Path | None,
        typer.Option(help="${PERENNIAL_LAKE} of the sources; by default all of the demonstration's year."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Send later data to the model server as clients would, and bring its labels when they would have arrived.

        perennial replay flight-delays --from 2013-06-01 --to 2013-07-01

    Exits 0 when every request was answered, 1 otherwise.
    """
    from datetime import UTC

    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_cli.embedded.home import find_home
    from perennial_cli.paths import pipelines_dir
    from perennial_cli.replay.engine import Progress, Replay, Target
    from perennial_cli.replay.load import load_plan
    from perennial_cli.replay.report import report
    from perennial_spec.errors import SpecError
    from perennial_spec.load import discover
    from perennial_spec.units import parse_duration

    try:
        speed = parse_duration(per_second)
    except ValueError as error:
        raise SpecError(f"--per-second {per_second!r}: {error}") from None
    pipeline = discover(pipelines_dir()).get(name)
    source = lake or find_home().path / "year"
    plan = load_plan(
        pipeline, source, start=start.replace(tzinfo=UTC), end=end.replace(tzinfo=UTC), per_second=speed, batch=batch
    )
    console = make_console()
    console.print(
        f"{len(plan.events):,} rows from {plan.start:%Y-%m-%d} to {plan.end:%Y-%m-%d} in {plan.seconds:.0f} s"
    )
    if dry_run:
        return
    platform = connection.load()
    with console.status("") as status:

        def on_tick(progress: Progress) -> None:
            status.update(
                f"{progress.simulated:%Y-%m-%d %H:%M}  {progress.rows:,} rows, {progress.failed} failed requests"
            )

        replay = Replay(plan, Target(platform.need("server_url"), name, concurrency), on_tick)
        try:
            progress = replay.run()
        except KeyboardInterrupt:
            progress = replay.progress
    console.print(report(progress))
    raise typer.Exit(1 if progress.failed else 0)
