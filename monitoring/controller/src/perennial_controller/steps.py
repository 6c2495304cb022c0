"""The steps of a run, as Airflow tells them: for the timeline, and kept in the ledger when the run ends."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from perennial_controller.airflow import Airflow, Task

MAX_STEPS = 60
_MAX_TEXT, _MAX_VALUES, _MAX_GATES = 300, 20, 20
_OURS = ("LocalStepOperator", "KubernetesStepOperator", "HITLOperator")
"""Other tasks decide which of these come next, and have nothing to tell."""


@dataclass(frozen=True)
class Step:
    """One task of a run that has begun."""

    task: str
    state: str
    """Airflow's: running, success, failed, deferred, ..."""
    started_at: str
    """ISO 8601, UTC."""
    ended_at: str | None = None
    verdict: str | None = None
    """pass, fail, inconclusive, error or wait; None before it has one."""
    summary: str = ""
    figures: dict[str, float | int | str | bool] = field(default_factory=dict)
    """Its outputs that are single values."""
    gates: list[dict[str, Any]] = field(default_factory=list)
    """Of the evaluation: gate, value, bound, passed, note."""


async def read_steps(airflow: Airflow, dag_id: str, run_id: str) -> list[Step]:
    """What the steps of a run came to until now; bounded in number and size.

    Raises:
        AirflowAway: no answer, or not one that can be read.
    """
    begun = await airflow.tasks(dag_id, run_id)
    tasks = [task for task in begun if task.operator in _OURS and task.state != "skipped"][:MAX_STEPS]
    results = await asyncio.gather(*(airflow.result(dag_id, run_id, task.task_id) for task in tasks))
    return [step_of(task, result) for task, result in zip(tasks, results, strict=True)]


def step_of(task: Task, result: dict[str, Any]) -> Step:
    """A task and its result, as one step. What a result should not hold is left out."""
    outputs = result.get("outputs")
    outputs = outputs if isinstance(outputs, dict) else {}
    gates = outputs.get("gates")
    failure = result.get("failure")
    told = failure.get("message") if isinstance(failure, dict) else None
    return Step(
        task.task_id,
        task.state,
        _iso(task.started_at) or "",
        _iso(task.ended_at),
        str(result["verdict"])[:20] if result.get("verdict") else None,
        str(result.get("summary") or told or "")[:_MAX_TEXT],
        _plain(outputs),
        [gate for gate in gates if isinstance(gate, dict)][:_MAX_GATES] if isinstance(gates, list) else [],
    )


def to_rows(steps: list[Step]) -> list[dict[str, Any]]:
    """For the ledger."""
    return [asdict(step) for step in steps]


def of_rows(rows: list[dict[str, Any]]) -> list[Step]:
    """From the ledger."""
    return [Step(**row) for row in rows]


def _plain(outputs: dict[str, Any]) -> dict[str, float | int | str | bool]:
    found = {str(key)[:64]: value for key, value in outputs.items() if isinstance(value, str | int | float | bool)}
    return {
        key: value[:_MAX_TEXT] if isinstance(value, str) else value for key, value in list(found.items())[:_MAX_VALUES]
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
