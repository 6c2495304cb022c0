"""perennial reject"""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the model version.")],
    run: Annotated[str | None, typer.Option(help="Id of the run, where several wait.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the evidence, and answer nothing.")] = False,
) -> None:
    """Reject the challenger that waits for a person: the run fails, and no traffic has moved. Exits 3 when nothing waits."""
    from perennial_cli.commands.approve import answer
    from perennial_spec.step import REJECT

    answer(name, REJECT, reason, run, dry_run=dry_run)
