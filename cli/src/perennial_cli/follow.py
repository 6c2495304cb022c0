"""Following a run of a DAG until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from perennial_cli.clients.airflow import ENDED, Airflow, Run, Task
from perennial_spec.errors import PlatformError

POLL_SECONDS = 0.5
APPEAR_SECONDS = 60.0
AWAY_SECONDS = 60.0


@dataclass(frozen=True)
class Followed:
    """A run and its tasks at one moment."""

    run: Run
    tasks: list[Task]

    @property
    def succeeded(self) -> bool:
        return self.run.state == "success"

    def task(self, task_id: str) -> Task | None:
        return next((task for task in self.tasks if task.id == task_id), None)

    @property
    def failed_tasks(self) -> list[Task]:
        return [task for task in self.tasks if task.state in {"failed", "up_for_retry"}]


def follow(
    airflow: Airflow, dag_id: str, run_id: str, on_change: Callable[[Followed], None], *, timeout_seconds: float = 3600
) -> Followed:
    """Poll a run until it has ended, telling `on_change` whenever a task or the run changes its state.

    Airflow may be away for a minute, because it is busy or starts again.

    Raises:
        PlatformError: the run does not appear, Airflow stays away, or the run has not ended in time.
    """
    began, seen, answered = time.monotonic(), None, time.monotonic()
    while True:
        try:
            now = _look(airflow, dag_id, run_id)
        except PlatformError:
            if time.monotonic() - answered > AWAY_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        answered, elapsed = time.monotonic(), time.monotonic() - began
        if now is None and elapsed > APPEAR_SECONDS:
            raise PlatformError(
                f"Airflow does not have the run {run_id} after {APPEAR_SECONDS:g} s",
                where=f"DAG {dag_id}",
                next="perennial logs controller; perennial logs airflow-scheduler",
            )
        if now is not None:
            state = (now.run.state, [(task.id, task.state, task.attempt) for task in now.tasks])
            if state != seen:
                seen = state
                on_change(now)
            if now.run.state in ENDED:
                return now
        if elapsed > timeout_seconds:
            raise PlatformError(
                f"the run {run_id} has not ended after {timeout_seconds:g} s",
                where=f"DAG {dag_id}",
                next="look at it in Airflow",
            )
        time.sleep(POLL_SECONDS)


def _look(airflow: Airflow, dag_id: str, run_id: str) -> Followed | None:
    run = airflow.run(dag_id, run_id)
    return Followed(run, airflow.tasks(dag_id, run_id)) if run else None
