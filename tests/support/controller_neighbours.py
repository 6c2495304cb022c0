"""A fake Airflow and a fake registry for the tests of the controller, over real HTTP."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The condition's first true value."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s for {what}")


@contextmanager
def served(app: Starlette, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The application in a thread of its own, on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan=lifespan))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the server")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@dataclass
class FakeAirflow:
    """Answers as Airflow 3 does to the four calls that the controller makes, and misbehaves on request."""

    url: str = ""
    dags: set[str] = field(default_factory=set)
    runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    posts: list[dict[str, Any]] = field(default_factory=list)
    """Every body that asked for a run, also those that were not answered."""
    tasks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Task instances by run id."""
    results: dict[tuple[str, str], Any] = field(default_factory=dict)
    """What steps came to, by run id and task id."""
    logins: int = 0
    token: str = "token-0"
    misbehave: Callable[[], Response | None] = lambda: None
    """What to answer to a request for a run instead of doing it."""
    hang_before: bool = False
    """Take a request for a run and never answer, without a run."""
    hang_after: bool = False
    """The same, with a run."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/auth/token", self._login, methods=["POST"]),
                Route("/api/v2/dags/~/dagRuns/list", self._list, methods=["POST"]),
                Route("/api/v2/dags/{dag}/dagRuns", self._trigger, methods=["POST"]),
                Route("/api/v2/dags/{dag}/dagRuns/{run}", self._get),
                Route("/api/v2/dags/{dag}/dagRuns/{run}/taskInstances", self._tasks),
                Route("/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/result", self._result),
            ]
        )

    def of(self, dag: str) -> list[dict[str, Any]]:
        return [run for (name, _), run in list(self.runs.items()) if name == dag]

    def finish(self, run_id: str, state: str = "success") -> None:
        (key,) = [key for key in self.runs if key[1] == run_id]
        self.runs[key] |= {"state": state, "end_date": datetime.now(UTC).isoformat()}

    def revoke_tokens(self) -> None:
        self.token = f"token-{uuid.uuid4()}"

    async def _login(self, request: Request) -> Response:
        self.logins += 1
        if await request.json() != {"username": "controller", "password": "s3cret"}:
            return JSONResponse({"detail": "Invalid credentials"}, 401)
        return JSONResponse({"access_token": self.token}, 201)

    async def _trigger(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"detail": "Invalid JWT token"}, 401)
        dag, body = request.path_params["dag"], await request.json()
        self.posts.append(body)
        if wrong := self.misbehave():
            return wrong
        if self.hang_before:
            await asyncio.sleep(3600)
        if dag not in self.dags:
            return JSONResponse({"detail": f"Dag with dag_id: '{dag}' not found"}, 404)
        if body["logical_date"] is not None or set(body) != {"dag_run_id", "logical_date", "conf"}:
            return JSONResponse({"detail": "not as agreed"}, 422)
        if (dag, body["dag_run_id"]) in self.runs:
            return JSONResponse({"detail": "DAGRun with this id already exists"}, 409)
        run = self.add(dag, body["dag_run_id"], conf=body["conf"])
        if self.hang_after:
            await asyncio.sleep(3600)
        return JSONResponse(run)

    def add(self, dag: str, run_id: str, run_type: str = "manual", **more: Any) -> dict[str, Any]:
        run = {"dag_id": dag, "dag_run_id": run_id, "state": "queued", "run_type": run_type, "end_date": None}
        run |= {"queued_at": datetime.now(UTC).isoformat(), "triggering_user_name": None, **more}
        self.runs[dag, run_id] = run
        return run

    async def _get(self, request: Request) -> Response:
        run = self.runs.get((request.path_params["dag"], request.path_params["run"]))
        return JSONResponse(run) if run else JSONResponse({"detail": "not found"}, 404)

    async def _tasks(self, request: Request) -> Response:
        return JSONResponse({"task_instances": self.tasks.get(request.path_params["run"], [])})

    async def _result(self, request: Request) -> Response:
        found = self.results.get((request.path_params["run"], request.path_params["task"]))
        return JSONResponse({"value": found}) if found is not None else JSONResponse({"detail": "not found"}, 404)

    async def _list(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"detail": "Invalid JWT token"}, 401)
        body = await request.json()
        runs = [r for r in self.runs.values() if r["dag_id"] in body["dag_ids"] and r["state"] in body["states"]]
        return JSONResponse({"dag_runs": runs[: body["page_limit"]], "total_entries": len(runs)})


@dataclass
class FakeRegistry:
    """Answers the questions that the controller asks MLflow as a real one does (`test_registry.py`), and misbehaves on request."""

    url: str = ""
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    misbehave: Callable[[], Response | None] = lambda: None
    misbehave_for: dict[str, Callable[[], Response]] = field(default_factory=dict)
    """What to answer to a question about the versions of one model."""

    def app(self) -> Starlette:
        api = "/api/2.0/mlflow"
        return Starlette(
            routes=[
                Route(f"{api}/registered-models/alias", self._alias),
                Route(f"{api}/registered-models/search", self._models),
                Route(f"{api}/model-versions/search", self._search),
            ]
        )

    def register(
        self,
        name: str,
        data_version: int | None,
        run_key: str = "run",
        champion: bool = False,
        verdict: str | None = None,
    ) -> str:
        versions = self.versions.setdefault(name, [])
        version = str(len(versions) + 1)
        tags = {"perennial.run_key": run_key}
        tags |= {"perennial.data_version": str(data_version)} if data_version is not None else {}
        tags |= {"perennial.verdict": verdict} if verdict else {}
        versions.append({"name": name, "version": version, "tags": [{"key": k, "value": v} for k, v in tags.items()]})
        if champion:
            self.champions[name] = version
        return version

    async def _alias(self, request: Request) -> Response:
        if wrong := self.misbehave():
            return wrong
        name, alias = request.query_params["name"], request.query_params["alias"]
        if name not in self.versions:
            return JSONResponse({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model not found"}, 404)
        if alias != "champion" or name not in self.champions:
            return JSONResponse({"error_code": "INVALID_PARAMETER_VALUE", "message": "alias not found"}, 400)
        return JSONResponse({"model_version": self.versions[name][int(self.champions[name]) - 1]})

    async def _models(self, request: Request) -> Response:
        if wrong := self.misbehave():
            return wrong
        champions = {name: [{"alias": "champion", "version": version}] for name, version in self.champions.items()}
        models = [{"name": name, "aliases": champions.get(name, [])} for name in self.versions]
        return JSONResponse({"registered_models": models} if models else {})

    async def _search(self, request: Request) -> Response:
        if wrong := self.misbehave():
            return wrong
        query = r"name = '(.+)' AND tags\.`perennial\.run_key` = '(.+)'"
        name, run_key = re.fullmatch(query, request.query_params["filter"]).groups()  # type: ignore[union-attr]
        if name in self.misbehave_for:
            return self.misbehave_for[name]()
        tag = {"key": "perennial.run_key", "value": run_key}
        found = [version for version in reversed(self.versions.get(name, [])) if tag in version["tags"]]
        return JSONResponse({"model_versions": found} if found else {})
