"""perennial pause, and what `perennial resume` shares with it"""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from perennial_cli.clients.controller import Pause


def command(
    name: Annotated[str | None, typer.Argument(help="Name of the pipeline; or --all.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="All pipelines.")] = False,
    reason: Annotated[str, typer.Option(help="Why; shown with each alert that is held.")] = "paused by hand",
    lasts: Annotated[
        str | None, typer.Option("--for", help="How long, as in 2h; until somebody resumes when not given.")
    ] = None,
) -> None:
    """Let no alert start a retraining for a while.

    Alerts go on to be written down, and are decided when the pause ends. New data lands, a rollout that is under way goes on, runs by the
    pipeline's schedule come, and `perennial run` works.
    """
    from perennial_cli.clients.controller import Controller
    from perennial_cli.embedded import connection

    pipeline = one_or_all(name, all_, "pause")
    found = Controller(connection.load()).pause(pipeline, reason, getpass.getuser(), lasts)
    show(found, pipeline)


def one_or_all(name: str | None, all_: bool, order: str) -> str | None:
    """The pipeline that is meant, None for all.

    Raises:
        PlatformError: neither or both are named.
    """
    from perennial_spec.errors import PlatformError

    if (name is None) != all_:
        raise PlatformError(
            f"what to {order} is not clear" if all_ else f"nothing to {order} is named",
            where="the command line",
            expected="the name of a pipeline, or --all",
            next=f"perennial {order} NAME, or: perennial {order} --all",
        )
    return name


def show(pauses: list[Pause], pipeline: str | None) -> None:
    """Say what is paused now, as far as it concerns `pipeline`; everything when None."""
    from perennial_cli.console import make_console

    console = make_console()
    told = [pause for pause in pauses if pipeline is None or pause.pipeline in {"*", pipeline}]
    for pause in told:
        what = "all pipelines" if pause.pipeline == "*" else pause.pipeline
        until = f"until {_when(pause.until)}" if pause.until else "until somebody resumes"
        console.print(f"paused: {what}, {until} ({pause.actor}: {pause.reason})", markup=False)
    if not told:
        console.print("nothing is paused" if pipeline is None else f"{pipeline} is not paused", markup=False)


def _when(at: str) -> str:
    return at[:19].replace("T", " ") + " UTC"
