"""Following a run of a DAG until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from perennial_cli.clients.airflow import ENDED, Airflow, Run, Task
from perennial_spec.errors import PlatformError

POLL_SECONDS = 0.5
APPEAR_SECONDS = 60.0


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

    Raises:
        PlatformError: the run does not appear, or has not ended in time.
    """
    began, seen = time.monotonic(), None
    while True:
        elapsed = time.monotonic() - began
        run = airflow.run(dag_id, run_id)
        if run is None and elapsed > APPEAR_SECONDS:
            raise PlatformError(
                f"Airflow does not have the run {run_id} after {APPEAR_SECONDS:g} s",
                where=f"DAG {dag_id}",
                next="perennial logs controller; perennial logs airflow-scheduler",
            )
        if run is not None:
            now = Followed(run, airflow.tasks(dag_id, run_id))
            state = (run.state, [(task.id, task.state, task.attempt) for task in now.tasks])
            if state != seen:
                seen = state
                on_change(now)
            if run.state in ENDED:
                return now
        if elapsed > timeout_seconds:
            raise PlatformError(
                f"the run {run_id} has not ended after {timeout_seconds:g} s",
                where=f"DAG {dag_id}",
                next="look at it in Airflow",
            )
        time.sleep(POLL_SECONDS)
