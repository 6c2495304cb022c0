"""perennial promote"""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from perennial_registry.promotion import Promotion
    from perennial_spec.platform import Platform


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    version: Annotated[
        str | None, typer.Option(help="Version that shall be champion; by default the challenger.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger and with the version.")] = "promoted by hand",
    force: Annotated[
        bool, typer.Option("--force", help="Also one that failed its gates, was rolled back, or was not approved.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until every model server answers with that version.")] = True,
) -> None:
    """Make a version that has passed its gates champion, with all of the traffic, now.

    By default the challenger: what is left of its rollout is skipped. `perennial rollback` goes back to the champion until now, and the
    new one is watched as after any promotion (deployment.watch).

        perennial promote flight-delays --dry-run
        perennial promote flight-delays --reason "seen enough at 50%"
        perennial promote flight-delays --version 7 --reason "the old one knows the holidays"

    Needs the registry alone: it works while the controller and Airflow are down.
    """
    from perennial_cli import moving
    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_registry.promotion import plan, promote
    from perennial_registry.registry import Registry

    platform, actor, console = connection.load(), getpass.getuser(), make_console()
    with Registry(platform.need("mlflow_url")) as registry:
        planned = plan(registry, name, version, signed=not force and _needs_approval(platform, name), force=force)
        _show(planned, console)
        if planned.is_done or dry_run:
            return
        before = planned.champion.version if planned.champion else None
        moving.note(platform, lambda ledger: ledger.note_promotion(name, reason, actor, planned.target.version, before))
        began = time.monotonic()
        route = promote(registry, planned, actor, reason)
    console.print(f"version {planned.target.version} is champion (route revision {route.revision})")
    if wait:
        moved = moving.Moved(name, planned.target.version, route.revision, began)
        moving.wait(platform, moved, f"take it back: perennial rollback {name}")


def _needs_approval(platform: Platform, name: str) -> bool:
    """Whether a person must have approved a version of the pipeline.

    Raises:
        PipelineNotFound: there is no such pipeline.
        SpecError: its spec cannot be read, so that nobody knows.
    """
    from pathlib import Path

    from perennial_spec.load import discover

    pipeline = discover(Path(platform.need("pipelines_dir"))).get(name)
    return pipeline.spec.deployment.approval == "required"


def _show(planned: Promotion, console: Console) -> None:
    from perennial_cli.insight.parts import version_of
    from perennial_cli.insight.words import gates

    console.print(f"{planned.name}: {planned}", markup=False)
    if not planned.is_done:
        for line in gates(version_of(planned.target)):
            console.print(f"  {line}", markup=False)
