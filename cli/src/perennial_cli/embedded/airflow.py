"""Airflow as four processes that the supervisor looks after; `airflow standalone` would leave most of its own behind."""

from __future__ import annotations

import sys
from pathlib import Path

from perennial_cli.embedded import databases
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Beat, Http, Part
from perennial_cli.embedded.ports import HOST, Ports
from perennial_cli.embedded.secrets import AIRFLOW_USER, Secrets

QUICK = {
    # Measured: six trivial tasks take 1.0-1.9 s with these and 7 s without.
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "CORE__PARALLELISM": "8",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
    "DAG_PROCESSOR__PARSING_PROCESSES": "1",
}
FIXED = {
    "CORE__EXECUTOR": "perennial_operators.executor.WarmLocalExecutor",
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{AIRFLOW_USER}:admin",
    "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    # The migration is a task of its own that all of Airflow's parts wait for.
    "DATABASE__CHECK_MIGRATIONS": "False",
    "API__HOST": HOST,
    "API__WORKERS": "1",
    # Into the part's own log, which is bounded; as files they would grow with every parse.
    "LOGGING__DAG_PROCESSOR_LOG_TARGET": "stdout",
    "LOGGING__COLORED_CONSOLE_LOG": "False",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
    "METRICS__STATSD_ON": "False",
    "TRACES__OTEL_ON": "False",
}
STOP_SECONDS = 5.0
"""What they were doing is in the database; a triggerer that has just started would wait for its child for ever."""
NO_TELEMETRY = {"SCARF_ANALYTICS": "false", "DO_NOT_TRACK": "1"}


def environment(home: Home, project: Path, ports: Ports, secrets: Secrets) -> dict[str, str]:
    """What every process of Airflow is told."""
    folder = home.path / "airflow"
    server = ports.url("airflow")
    own = {
        "CORE__DAGS_FOLDER": str(project / "dags"),
        "CORE__PLUGINS_FOLDER": str(folder / "plugins"),
        "CORE__EXECUTION_API_SERVER_URL": f"{server}/execution/",
        "CORE__FERNET_KEY": secrets.airflow_fernet,
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(secrets.airflow_passwords_file),
        "DATABASE__SQL_ALCHEMY_CONN": databases.url(ports.postgres, secrets.postgres_password, "airflow", "+psycopg2"),
        "API__PORT": str(ports.airflow),
        "API__BASE_URL": server,
        "API__SECRET_KEY": secrets.airflow_session,
        "API_AUTH__JWT_SECRET": secrets.airflow_jwt,
        "LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
    }
    settings = {f"AIRFLOW__{name}": value for name, value in {**QUICK, **FIXED, **own}.items()}
    return {"AIRFLOW_HOME": str(folder), **settings, **NO_TELEMETRY}


def parts(airflow: dict[str, str], database_url: str, ports: Ports) -> list[Part]:
    """The migration and the four processes.

    Args:
        airflow: their environment.
        database_url: any database of the server.
    """
    server = ports.url("airflow")
    health = f"{server}/api/v2/monitor/health"

    def process(name: str, *arguments: str) -> Part:
        component = name.replace("-", "_")
        return Part(
            name=f"airflow-{name}",
            command=(sys.executable, "-m", "airflow", name, *arguments),
            environment=airflow,
            ready=Beat(health, (component, f"latest_{component}_heartbeat")),
            needs=("airflow-migrate",),
            stop_seconds=STOP_SECONDS,
        )

    return [
        Part(
            name="airflow-migrate",
            command=(sys.executable, "-m", "perennial_cli.embedded.databases", "migrate"),
            environment={**airflow, databases.SERVER_VARIABLE: database_url},
            needs=("databases",),
            kind="task",
        ),
        Part(
            name="airflow-api-server",
            command=(sys.executable, "-m", "airflow", "api-server"),
            environment=airflow,
            # Its first request blocks the server for seconds: asked for here, and not by the first task.
            ready=Http(f"{server}/execution/health"),
            needs=("airflow-migrate",),
            address=server,
            stop_seconds=STOP_SECONDS,
        ),
        process("scheduler", "--skip-serve-logs"),
        process("dag-processor"),
        process("triggerer", "--skip-serve-logs"),
    ]
