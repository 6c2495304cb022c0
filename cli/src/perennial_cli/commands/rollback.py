"""perennial rollback"""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from perennial_registry.restore import Restoration
    from perennial_spec.platform import Platform

FOLLOW_SECONDS = 60.0


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
        _tell_the_ledger(platform, planned, reason, actor)
        began = time.monotonic()
        route = restore(registry, planned, actor, reason)
    console.print(f"the route is written (revision {route.revision})")
    if wait:
        _wait(platform, planned, route.revision, began, console)


def _tell_the_ledger(platform: Platform, planned: Restoration, reason: str, actor: str) -> None:
    """A rollback does not wait for its paperwork: a controller that is away is told of, and nothing more."""
    from perennial_cli.clients.controller import Controller
    from perennial_cli.console import make_console
    from perennial_spec.errors import PerennialError

    leaving = [version.version for version in planned.leaving]
    try:
        Controller(platform).note_rollback(planned.name, reason, actor, planned.target.version, leaving)
    except (PerennialError, OSError) as error:
        make_console(stderr=True).print(f"the ledger does not know of this: {error}", markup=False)


def _wait(platform: Platform, planned: Restoration, revision: int, began: float, console: Console) -> None:
    from perennial_spec.errors import MonitoringError
    from perennial_steps.fleet import wait_until_followed
    from perennial_steps.prometheus import Prometheus

    version = planned.target.version
    with Prometheus(platform.need("prometheus_url")) as prometheus:
        there = wait_until_followed(prometheus, planned.name, version, revision, FOLLOW_SECONDS)
    if there.refused:
        raise MonitoringError(
            f"version {version} is refused by {', '.join(sorted(there.refused))}",
            where="the model server's log",
            expected="a version that loads and predicts as it did when it was trained",
            next=f"perennial logs server; or go to another version: perennial rollback {planned.name} --to VERSION",
        )
    took = time.monotonic() - began
    console.print(f"all {len(there.servers)} model servers answer with version {version}, {took:.1f} s after the order")
