"""perennial demo"""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    per_second: Annotated[
        str | None, typer.Option(help="Time of 2013 that passes in one second of the replay.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
) -> None:
    """Watch the loop close on the flights that left New York in 2013.

    Starts the platform in an empty state folder, trains on January and February, replays the summer, and follows the drift alert
    through retraining and rollout until the model server answers with the new version. Exits 0 only then. Leaves the platform up.
    """
    from dataclasses import replace

    from perennial_cli.demo.run import run_demo
    from perennial_cli.demo.script import Script
    from perennial_spec.errors import SpecError
    from perennial_spec.units import parse_duration

    script = Script()
    if per_second is not None:
        try:
            script = replace(script, per_second=parse_duration(per_second))
        except ValueError as error:
            raise SpecError(f"--per-second {per_second!r}: {error}") from None
    raise typer.Exit(run_demo(script, dry_run=dry_run))
