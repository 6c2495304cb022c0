"""Airflow's REST API, as far as the controller needs it: start a run, ask after it, list what is running."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from perennial_spec.errors import PlatformError

_RUNS = "/api/v2/dags/{dag}/dagRuns"
_UNFINISHED = ("queued", "running")
_MAX_DETAIL = 300


class AirflowAway(PlatformError):
    """Airflow does not answer, or not now: worth trying again."""


class AirflowRefuses(PlatformError):
    """Airflow has understood, and will never take this run."""


@dataclass(frozen=True)
class DagRun:
    """A run as Airflow tells it."""

    dag_id: str
    run_id: str
    state: str
    """queued, running, success or failed."""
    run_type: str = "manual"
    started_by: str | None = None
    ended_at: datetime | None = None
    queued_at: datetime | None = None

    @property
    def finished(self) -> bool:
        return self.state in ("success", "failed")


@dataclass(frozen=True)
class Task:
    """A task of a run that has begun."""

    task_id: str
    operator: str
    state: str
    started_at: datetime
    ended_at: datetime | None


class Airflow:
    """A client with a token of its own, which it renews when Airflow no longer takes it."""

    def __init__(self, url: str, credentials_file: str, http: httpx.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._credentials_file = Path(credentials_file)
        self._http = http
        self._token: str | None = None
        self._login = asyncio.Lock()
        self.answers: bool | None = None
        """Whether it answered, and took our token, when it was last asked; None: it was not asked yet."""

    async def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
        """Start a run. False: Airflow has a run of that id already, which is as good.

        Raises:
            AirflowAway: no answer, no token, an unknown DAG (its file may not be read yet, or be broken), or an error of its own.
            AirflowRefuses: the request itself is wrong for this DAG.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        response = await self._request("POST", _RUNS.format(dag=dag_id), json=body)
        if response.status_code == 409:
            return False
        if response.is_success:
            return True
        detail = _detail(response)
        never = response.status_code == 422 or (response.status_code == 400 and "import error" not in detail)
        kind = AirflowRefuses if never else AirflowAway
        raise kind(f"Airflow answered {response.status_code} to a run of {dag_id}: {detail}", where=self._url)

    async def run(self, dag_id: str, run_id: str) -> DagRun | None:
        """The run, or None when Airflow does not know it (it may have been deleted).

        Raises:
            AirflowAway: no answer, or not one that can be read.
        """
        response = await self._request("GET", f"{_RUNS.format(dag=dag_id)}/{quote(run_id, safe='')}")
        if response.status_code == 404:
            return None
        return _dag_run(self._read(response))

    async def tasks(self, dag_id: str, run_id: str) -> list[Task]:
        """The tasks of a run that have begun, in the order in which they did; none when Airflow does not know the run.

        Raises:
            AirflowAway: no answer, or not one that can be read.
        """
        path = f"{_RUNS.format(dag=dag_id)}/{quote(run_id, safe='')}/taskInstances?limit=200"
        response = await self._request("GET", path)
        rows = [] if response.status_code == 404 else self._read(response).get("task_instances", [])
        return sorted((task for row in rows if (task := _task(row))), key=lambda task: task.started_at)

    async def result(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """What the step of a task came to (`perennial_spec.step.StepResult` as JSON); empty while it has not ended.

        Raises:
            AirflowAway: no answer, or not one that can be read.
        """
        path = f"{_RUNS.format(dag=dag_id)}/{quote(run_id, safe='')}/taskInstances/{quote(task_id, safe='')}"
        response = await self._request("GET", f"{path}/xcomEntries/result")
        if response.status_code == 404:
            return {}
        value = self._read(response).get("value")
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    async def unfinished(self, dag_ids: list[str]) -> list[DagRun]:
        """All runs of these DAGs that are queued or running.

        Raises:
            AirflowAway: no answer, or not one that can be read.
        """
        body = {"dag_ids": dag_ids, "states": list(_UNFINISHED), "page_limit": 100}
        answer = self._read(await self._request("POST", _RUNS.format(dag="~") + "/list", json=body))
        return [_dag_run(run) for run in answer["dag_runs"]]

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            raise AirflowAway(f"Airflow answered {response.status_code}: {_detail(response)}", where=self._url)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AirflowAway(
                "Airflow's answer is not JSON", where=str(response.request.url), expected="Airflow's API v2"
            )
        return answer

    async def _request(self, method: str, path: str, json: dict[str, Any] | None = None) -> httpx.Response:
        try:
            response = await self._with_token(method, path, json)
        except AirflowAway:
            self.answers = False
            raise
        self.answers = response.status_code < 500
        return response

    async def _with_token(self, method: str, path: str, json: dict[str, Any] | None) -> httpx.Response:
        token = self._token or await self._renew(None)
        response = await self._send(method, path, json, token)
        if response.status_code in (401, 403):
            response = await self._send(method, path, json, await self._renew(token))
        if response.status_code in (401, 403):
            raise AirflowAway(
                f"Airflow answered {response.status_code} to a fresh token",
                where=self._url,
                expected="credentials of a user who may start and read runs",
                next=f"correct {self._credentials_file}",
            )
        return response

    async def _send(self, method: str, path: str, json: dict[str, Any] | None, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            return await self._http.request(method, self._url + path, json=json, headers=headers)
        except httpx.HTTPError as error:
            raise AirflowAway(f"Airflow does not answer ({type(error).__name__})", where=self._url) from error

    async def _renew(self, old: str | None) -> str:
        """A token other than `old`; one login for all who ask at once."""
        async with self._login:
            if self._token is not None and self._token != old:
                return self._token
            self._token = None
            try:
                response = await self._http.post(f"{self._url}/auth/token", json=_credentials(self._credentials_file))
                if not response.is_success:
                    raise AirflowAway(
                        f"Airflow answered {response.status_code} to the login",
                        where=self._url,
                        next=f"correct {self._credentials_file}",
                    )
                token = response.json()["access_token"]
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                raise AirflowAway(f"Airflow gives no token ({type(error).__name__})", where=self._url) from error
            self._token = str(token)
            return self._token


def _credentials(file: Path) -> dict[str, str]:
    try:
        value = json.loads(file.read_text())
        return {"username": value["username"], "password": value["password"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AirflowAway(
            f"Airflow's credentials cannot be read ({type(error).__name__})",
            where=str(file),
            expected='JSON: {"username": ..., "password": ...}',
        ) from None


def _dag_run(value: dict[str, Any]) -> DagRun:
    try:
        return DagRun(
            dag_id=value["dag_id"],
            run_id=value["dag_run_id"],
            state=value["state"],
            run_type=value.get("run_type", "manual"),
            started_by=value.get("triggering_user_name"),
            ended_at=_time(value.get("end_date")),
            queued_at=_time(value.get("queued_at")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AirflowAway(
            f"a run in Airflow's answer cannot be read ({error!r})", expected="Airflow's API v2"
        ) from None


def _task(value: dict[str, Any]) -> Task | None:
    """None: it has not begun."""
    try:
        started = _time(value.get("start_date"))
        if started is None:
            return None
        operator, state = str(value.get("operator") or ""), str(value.get("state") or "")
        return Task(str(value["task_id"]), operator, state, started, _time(value.get("end_date")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AirflowAway(
            f"a task in Airflow's answer cannot be read ({error!r})", expected="Airflow's API v2"
        ) from None


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    return str(detail)[:_MAX_DETAIL]
