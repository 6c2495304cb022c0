"""The parts of the embedded platform, and what each is told."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from perennial_cli.embedded import airflow, databases, mlflow, postgres, prometheus
from perennial_cli.embedded.home import HOME_VARIABLE, Home
from perennial_cli.embedded.part import Answers, Http, Part
from perennial_cli.embedded.ports import HOST, Ports
from perennial_cli.embedded.secrets import Secrets
from perennial_spec.platform import Platform

LISTENS = {
    "airflow": "airflow-api-server",
    "server": "server",
    "controller": "controller",
    "quality": "quality",
    "mlflow": "mlflow",
    "prometheus": "prometheus",
    "alertmanager": "alertmanager",
    "postgres": "postgres",
}
"""Port to the part that listens on it."""
LIGHT = {
    # XGBoost's and numpy's threads must not spin while they wait: on a shared machine that costs ten times the work.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}

POLL_VARIABLE, POLL_SECONDS = "PERENNIAL_SERVING_POLL_SECONDS", "1"
"""The default of the model server is made for many of them; here there is one, and a person who waits for the next route."""


def platform_of(home: Home, project: Path, ports: Ports, secrets: Secrets) -> Platform:
    """Where everything will be."""
    return Platform(
        pipelines_dir=str(project / "dags" / "pipelines"),
        store=str(home.store),
        lake=str(home.lake),
        mlflow_url=ports.url("mlflow"),
        prometheus_url=ports.url("prometheus"),
        alertmanager_url=ports.url("alertmanager"),
        airflow_url=ports.url("airflow"),
        airflow_credentials_file=str(secrets.airflow_credentials_file),
        controller_url=ports.url("controller"),
        token_file=str(secrets.token_file),
        server_url=ports.url("server"),
        database_url=databases.url(ports.postgres, secrets.postgres_password, "perennial"),
    )


def platform_parts(home: Home, project: Path, ports: Ports, secrets: Secrets) -> tuple[Part, ...]:
    """All parts, in the order in which `status` shows them.

    Raises:
        PlatformError: a program is not installed.
    """
    platform = platform_of(home, project, ports, secrets)
    # Steps and model servers have no business in the ledger's database.
    known = {**replace(platform, database_url=None).to_environment(), **LIGHT, HOME_VARIABLE: str(home.path)}
    ledger = {**known, **platform.to_environment()}
    server = databases.url(ports.postgres, secrets.postgres_password, "postgres")
    poll = os.environ.get(POLL_VARIABLE, POLL_SECONDS)
    return (
        _postgres(home, ports, secrets),
        Part(
            name="databases",
            command=(sys.executable, "-m", "perennial_cli.embedded.databases", "create"),
            environment={databases.SERVER_VARIABLE: server},
            needs=("postgres",),
            kind="task",
        ),
        mlflow.part(home, ports, secrets),
        *airflow.parts({**known, **airflow.environment(home, project, ports, secrets)}, server, ports),
        *prometheus.parts(home, ports),
        _ours("server", "perennial_serving", {**known, POLL_VARIABLE: poll}, ports, needs=("mlflow",)),
        _ours("controller", "perennial_controller", ledger, ports, needs=("databases",)),
        _ours("quality", "perennial_controller.quality", known, ports, needs=("mlflow",)),
    )


def _postgres(home: Home, ports: Ports, secrets: Secrets) -> Part:
    return Part(
        name="postgres",
        command=(
            *(sys.executable, "-m", "perennial_cli.embedded.postgres"),
            *(str(home.path / "postgres"), str(ports.postgres)),
        ),
        environment={postgres.PASSWORD_FILE_VARIABLE: str(secrets.postgres_password_file)},
        # A whole login: after a crash PostgreSQL listens before it has recovered.
        ready=Answers(postgres.ask_command(ports.postgres, secrets.postgres_passfile)),
        address=f"{HOST}:{ports.postgres}",
        # SIGTERM would wait until every client has gone by itself; SIGINT is PostgreSQL's fast and clean way.
        stop_signal=signal.SIGINT,
        stop_seconds=30.0,
    )


def _ours(name: str, module: str, known: dict[str, str], ports: Ports, *, needs: tuple[str, ...]) -> Part:
    url = ports.url(name)
    return Part(
        name=name,
        command=(sys.executable, "-m", module),
        environment={**known, "PERENNIAL_HOST": HOST, "PERENNIAL_PORT": url.rsplit(":", 1)[1]},
        ready=Http(f"{url}/metrics"),
        needs=needs,
        address=url,
        # Requests that run, and rows that wait to be logged, are finished first.
        stop_seconds=25.0,
    )
