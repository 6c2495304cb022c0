"""perennial run, and what `perennial ingest` shares with it"""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from perennial_cli.clients.controller import Decision
    from perennial_spec.platform import Platform

NOT_STARTED = 3
"""Exit code: the controller decided against a run; the reason is printed."""


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger and with the model.")] = "asked for by hand",
    wait: Annotated[bool, typer.Option(help="Follow the run until it ends.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be decided on this and on what is open; start nothing.")
    ] = False,
) -> None:
    """Train, evaluate and deploy now. Exits 0 when the run succeeded, 1 when it failed, 3 when it was not started."""
    from perennial_cli.clients.controller import Controller
    from perennial_cli.embedded import connection
    from perennial_cli.paths import pipelines_dir
    from perennial_spec.load import discover

    discover(pipelines_dir()).get(name)  # a typo or a broken spec is told here, before anything is asked
    platform = connection.load()
    if dry_run:
        rehearse(platform, name)
        return
    decision = Controller(platform).request_run(name, reason, getpass.getuser())
    show(platform, decision, wait=wait)


def rehearse(platform: Platform, name: str) -> None:
    """Print what would be decided now. Exits 3 when no run would be started."""
    from perennial_cli.clients.controller import Controller
    from perennial_cli.console import make_console

    console, found = make_console(), Controller(platform).rehearse_run(name)
    console.print(f"would be {found.decision.replace('_', ' ')}: {found.reason}", markup=False)
    for other in found.others:
        console.print(
            f"  decision {other['id']} ({other['summary']}) would be {other['decision'].replace('_', ' ')}: {other['reason']}",
            markup=False,
        )
    if found.decision != "accepted":
        raise typer.Exit(NOT_STARTED)


def show(platform: Platform, decision: Decision, *, wait: bool) -> None:
    """Say what was decided, and follow the run to its end when `wait`."""
    from perennial_cli.clients.airflow import Airflow
    from perennial_cli.console import make_console
    from perennial_cli.follow import Followed, follow

    console = make_console()
    console.print(
        f"decision {decision.id}: {decision.decision}" + (f" - {decision.reason}" if decision.reason else ""),
        markup=False,
    )
    if not decision.run_id or not decision.dag_id:
        raise typer.Exit(NOT_STARTED)
    console.print(f"run: {platform.airflow_url}/dags/{decision.dag_id}/runs/{decision.run_id}", markup=False)
    if not wait:
        return
    told: set[tuple[str, str]] = set()

    def tell(now: Followed) -> None:
        for task in now.tasks:
            if (task.id, task.state) not in told and task.state in {
                "running",
                "success",
                "failed",
                "up_for_retry",
                "upstream_failed",
            }:
                told.add((task.id, task.state))
                took = f" in {task.seconds:.1f} s" if task.state == "success" and task.seconds else ""
                console.print(f"  {task.id}: {task.state}{took}", markup=False)

    done = follow(Airflow(platform), decision.dag_id, decision.run_id, tell)
    console.print(f"the run ended: {done.run.state}")
    if not done.succeeded:
        raise typer.Exit(1)
