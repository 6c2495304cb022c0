"""Airflow: how a run and its tasks are doing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial_cli.clients.http import TIMEOUT_SECONDS, ask
from perennial_cli.clients.http import said as said_by
from perennial_spec.errors import PlatformError
from perennial_spec.platform import Platform

if TYPE_CHECKING:
    import httpx

ENDED = frozenset({"success", "failed"})
WAITING = frozenset({"awaiting_input", "deferred"})
"""States of a task that waits for a person; the second before Airflow 3.3."""


@dataclass(frozen=True)
class Task:
    """One task of a run."""

    id: str
    state: str
    start: datetime | None
    end: datetime | None
    attempt: int

    @property
    def seconds(self) -> float | None:
        return (self.end - self.start).total_seconds() if self.start and self.end else None


@dataclass(frozen=True)
class Run:
    """One run of a DAG; `state` is queued, running, success or failed."""

    dag_id: str
    id: str
    state: str
    queued: datetime | None
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class Question:
    """A run that waits for a person's answer."""

    dag_id: str
    run_id: str
    task_id: str
    subject: str
    body: str
    """The evidence, Markdown."""
    asked: datetime


class Airflow:
    """Airflow's REST API, signed in with the credentials file."""

    def __init__(self, platform: Platform) -> None:
        import httpx

        self._client = httpx.Client(base_url=platform.need("airflow_url"), timeout=TIMEOUT_SECONDS)
        self._credentials = Path(platform.need("airflow_credentials_file"))

    def close(self) -> None:
        self._client.close()

    def run(self, dag_id: str, run_id: str) -> Run | None:
        """The run, or None while Airflow does not know it."""
        found = self._get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        return _run(found) if found else None

    def tasks(self, dag_id: str, run_id: str) -> list[Task]:
        """The run's tasks in the order in which they started; those not started come last."""
        found = self._get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200")
        tasks = [_task(row) for row in found["task_instances"]] if found else []
        return sorted(tasks, key=lambda task: (task.start is None, task.start.timestamp() if task.start else 0.0))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """What a task returned, or left under another key; None when it did not."""
        found = self._get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}")
        value = found["value"] if found else None
        return json.loads(value) if isinstance(value, str) else value

    def questions(self, dag_id: str) -> list[Question]:
        """What runs of a DAG wait for, the oldest first."""
        found = self._get(f"/api/v2/dags/{dag_id}/dagRuns/~/hitlDetails?response_received=false&limit=100")
        rows = found["hitl_details"] if found else []
        waiting = [_question(row) for row in rows if row["task_instance"]["state"] in WAITING]
        return sorted(waiting, key=lambda question: question.asked)

    def answer(self, question: Question, option: str, said: dict[str, str]) -> None:
        """Answer it; `said` goes with the answer.

        Raises:
            PlatformError: somebody else has answered meanwhile, this account may not, or Airflow is away.
        """
        path = (
            f"/api/v2/dags/{question.dag_id}/dagRuns/{question.run_id}/taskInstances/{question.task_id}/-1/hitlDetails"
        )
        response = self._ask("PATCH", path, json={"chosen_options": [option], "params_input": said})
        if response.status_code != 200:
            raise PlatformError(
                f"the answer was not taken: {said_by(response)}",
                where=f"Airflow at {self._client.base_url}, run {question.run_id}",
                next="somebody else may have answered: look at the run in Airflow",
            )

    def has_dag(self, dag_id: str) -> bool:
        return self._get(f"/api/v2/dags/{dag_id}") is not None

    def import_errors(self) -> list[tuple[str, str]]:
        """`(file, message)` of every DAG file that Airflow cannot read."""
        found = self._get("/api/v2/importErrors")
        return [(row["filename"], row["stack_trace"]) for row in found["import_errors"]] if found else []

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = ask(self._client, method, path, part="airflow-api-server", **options)
        if response.status_code == 401:
            self._sign_in()
            response = ask(self._client, method, path, part="airflow-api-server", **options)
        return response

    def _get(self, path: str) -> Any:
        response = self._ask("GET", path)
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise PlatformError(
                f"GET {path} was answered with {said_by(response)}", where=f"Airflow at {self._client.base_url}"
            )
        return response.json()

    def _sign_in(self) -> None:
        credentials = json.loads(self._credentials.read_text())
        response = ask(self._client, "POST", "/auth/token", part="airflow-api-server", json=credentials)
        if response.status_code not in {200, 201}:
            raise PlatformError(
                f"Airflow refused the credentials: {response.status_code}",
                where=str(self._credentials),
                next="perennial status",
            )
        self._client.headers["Authorization"] = f"Bearer {response.json()['access_token']}"


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _run(row: dict[str, Any]) -> Run:
    return Run(
        row["dag_id"],
        row["dag_run_id"],
        row["state"],
        _time(row.get("queued_at")),
        _time(row["start_date"]),
        _time(row["end_date"]),
    )


def _question(row: dict[str, Any]) -> Question:
    task = row["task_instance"]
    asked = datetime.fromisoformat(row["created_at"])
    return Question(task["dag_id"], task["dag_run_id"], task["task_id"], row["subject"], row["body"] or "", asked)


def _task(row: dict[str, Any]) -> Task:
    return Task(
        row["task_id"],
        row["state"] or "none",
        _time(row["start_date"]),
        _time(row["end_date"]),
        row.get("try_number") or 0,
    )
