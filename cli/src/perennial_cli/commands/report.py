"""perennial report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    since: Annotated[str, typer.Option(help="How far back, as in 24h or 7d.")] = "7d",
    output: Annotated[Path | None, typer.Option(help="The file; NAME-report.html here when not given.")] = None,
) -> None:
    """Write the last days of a pipeline as one page with plots.

    Drift by feature, quality, traffic by version, requests, alerts, versions side by side, and every decision with its reason: one HTML
    file that loads nothing, to be read on a phone, sent by mail or printed.

        perennial report flight-delays
        perennial report flight-delays --since 24h --output incident.html

    Exits 0 when the page is whole, 4 when a part was away and the page says so.
    """
    from datetime import timedelta

    from perennial_cli.embedded import connection
    from perennial_cli.insight.asking import PART_AWAY
    from perennial_cli.insight.parts import parts_of, utc_now
    from perennial_cli.paths import pipelines_dir
    from perennial_cli.report.gather import gather
    from perennial_cli.report.page import need_writable, render, write
    from perennial_spec.errors import SpecError
    from perennial_spec.load import discover
    from perennial_spec.units import parse_duration

    try:
        length = parse_duration(since)
    except (ValueError, OverflowError) as error:
        raise SpecError(f"--since {since!r}: {error}") from None
    if not timedelta(minutes=1) <= length <= timedelta(days=3650):
        raise SpecError(f"--since {since!r}", expected="from 1m to 3650d", next=f"perennial report {name} --since 7d")
    pipeline = discover(pipelines_dir()).get(name)
    file = output or Path(f"{name}-report.html")
    need_writable(file.absolute())
    with parts_of(connection.load()) as parts:
        report = gather(parts, pipeline.spec, length, utc_now())
    write(file.absolute(), render(report))
    typer.echo(str(file))
    if report.away:
        typer.echo(f"not all is known: {', '.join(sorted(report.away))} did not answer", err=True)
        raise typer.Exit(PART_AWAY)
