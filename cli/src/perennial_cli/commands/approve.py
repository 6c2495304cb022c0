"""perennial approve, and what `perennial reject` shares with it"""

from __future__ import annotations

import getpass
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from perennial_cli.clients.airflow import Question

NOTHING_ASKED = 3
"""Exit code: no run waits for an answer."""
SETTLED_SECONDS = 3.0
"""Airflow fails a task that is answered in the moment in which it begins to wait, before its process has ended and that is noted."""


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the model version.")] = "",
    run: Annotated[str | None, typer.Option(help="Id of the run, where several wait.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the evidence, and answer nothing.")] = False,
) -> None:
    """Approve the challenger that waits for a person (deployment.approval: required): its rollout begins.

    Shows the evidence - gates, gain, worst slices, cost and model card - and answers. Exits 3 when nothing waits.
    """
    from perennial_spec.step import APPROVE

    answer(name, APPROVE, reason, run, dry_run=dry_run)


def answer(name: str, option: str, reason: str, run: str | None, *, dry_run: bool) -> None:
    """Show the evidence of the run that waits, and answer it.

    Raises:
        PlatformError: several runs wait and none is named, or the one that is named does not; Airflow does not take the answer.
    """
    from perennial_cli.clients.airflow import Airflow
    from perennial_cli.console import make_console
    from perennial_cli.embedded import connection
    from perennial_spec import names

    console = make_console()
    airflow = Airflow(connection.load())
    waiting = [question for question in airflow.questions(names.dag_id(name)) if question.task_id == "approve"]
    if not waiting:
        console.print(f"no run of {name} waits for an answer", markup=False)
        raise typer.Exit(NOTHING_ASKED)
    question = _the_one(waiting, run)
    console.print(f"run {question.run_id}: {question.subject}", markup=False)
    _show(question.body)
    if dry_run:
        return
    time.sleep(min(max(SETTLED_SECONDS - (datetime.now(UTC) - question.asked).total_seconds(), 0), SETTLED_SECONDS))
    airflow.answer(question, option, {"why": reason, "on_behalf_of": getpass.getuser()})
    console.print(f"answered: {option}" + (f" - {reason}" if reason else ""), markup=False)


def _the_one(waiting: list[Question], run: str | None) -> Question:
    from perennial_spec.errors import PlatformError

    found = [question for question in waiting if run in {None, question.run_id}]
    if len(found) == 1:
        return found[0]
    ids = ", ".join(question.run_id for question in waiting)
    raise PlatformError(
        f"run {run} does not wait for an answer" if run else f"{len(waiting)} runs wait for an answer",
        where="Airflow",
        expected=f"one of {ids}",
        next="name it with --run ID",
    )


def _show(evidence: str) -> None:
    from rich.markdown import Markdown

    from perennial_cli.console import make_console

    console = make_console()
    console.print(Markdown(evidence) if console.is_terminal else evidence, markup=False)
