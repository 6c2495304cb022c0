"""perennial rollback"""

from __future__ import annotations

import getpass
import time
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    to: Annotated[
        str | None, typer.Option(help="Version that shall serve; by default the one that served before.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger and with the version.")] = "rolled back by hand",
    force: Annotated[
        bool, typer.Option("--force", help="With --to: also a version that never was champion, or was rolled back.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until every model server answers with that version.")] = True,
) -> None:
    """Take all of the traffic back, now.

    While a challenger is rolled out: to the champion. After a promotion: to the version that was champion before, which is champion
    again; done twice, it goes further back. The reason stays with the version that leaves, and the run that rolls it out goes no further.

        perennial rollback flight-delays --dry-run
        perennial rollback flight-delays --reason "refuses all flights to Boston"
        perennial rollback flight-delays --to 7

    Needs the registry alone: it works while the controller and Airflow are down. A drift alert that fires may start the next
    retraining: to have time, `perennial pause` it first.
    """
    from perennial_cli import moving
    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_registry.registry import Registry
    from perennial_registry.restore import plan, restore

    platform, actor, console = connection.load(), getpass.getuser(), make_console()
    with Registry(platform.need("mlflow_url")) as registry:
        planned = plan(registry, name, to, force=force)
        console.print(f"{name}: {planned}", markup=False)
        if planned.is_done or dry_run:
            return
        leaving = [version.version for version in planned.leaving]
        moving.note(platform, lambda ledger: ledger.note_rollback(name, reason, actor, planned.target.version, leaving))
        began = time.monotonic()
        route = restore(registry, planned, actor, reason)
    console.print(f"the route is written (revision {route.revision})")
    if wait:
        back = f"perennial rollback {name} --to VERSION"
        moving.wait(
            platform,
            moving.Moved(name, planned.target.version, route.revision, began),
            f"go to another version: {back}",
        )
