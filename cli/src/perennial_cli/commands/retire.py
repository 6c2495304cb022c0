"""perennial retire"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from perennial_registry.retirement import Retirement


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be archived, and change nothing.")] = False,
) -> None:
    """Archive the versions whose time is over, now; by itself it happens once a day.

    The pipeline's `lifetime` says when that is. What serves, is the challenger, or is what a rollback goes back to always stays. An
    archived version stays in the registry, with its run and plots; its version of the data is no longer kept for it.

        perennial retire flight-delays --dry-run

    Files of the data are deleted by the daily run alone (lifetime.delete_data_after), never by this command.
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_registry.registry import Registry
    from perennial_registry.retirement import archive, plan
    from perennial_spec.load import discover

    platform, console, now = connection.load(), make_console(), datetime.now(UTC)
    pipeline = discover(Path(platform.need("pipelines_dir"))).get(name)
    with Registry(platform.need("mlflow_url")) as registry:
        planned = plan(registry, name, pipeline.spec.lifetime, now)
        console.print(_table(planned))
        if not dry_run:
            archive(registry, planned, now)
    count = len(planned.leaving)
    words = "1 version" if count == 1 else f"{count or 'no'} versions"
    console.print(f"{name}: {words} {'would be archived' if dry_run else 'archived'}", markup=False)


def _table(planned: Retirement) -> Table:
    from rich.table import Table
    from rich.text import Text

    from perennial_spec import names

    table = Table(box=None, pad_edge=False)
    for heading in ("version", "verdict", "", "why"):
        table.add_column(heading)
    for each in planned.judged:
        verdict = each.version.tags.get(names.TAG_VERDICT, "-").replace("_", " ")
        table.add_row(each.version.version, verdict, "archive" if each.archive else "keep", Text(each.why))
    return table
