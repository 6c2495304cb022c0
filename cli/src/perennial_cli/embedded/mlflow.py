"""The MLflow server, as one process.

`mlflow server` is a parent of 250 MB that stays only to wait for its uvicorn child, and imports all of MLflow a second time first.
What it passes on to the child is these variables (`mlflow.server.constants`; a test compares the names).
"""

from __future__ import annotations

import sys

from perennial_cli.embedded import databases
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Http, Part
from perennial_cli.embedded.ports import HOST, Ports
from perennial_cli.embedded.secrets import Secrets


def part(home: Home, ports: Ports, secrets: Secrets) -> Part:
    """The server on the database `mlflow`, artifacts in the state folder and served by it."""
    url = ports.url("mlflow")
    return Part(
        name="mlflow",
        command=(
            *(sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app"),
            *("--host", HOST, "--port", str(ports.mlflow), "--workers", "1", "--no-access-log"),
        ),
        environment={
            "_MLFLOW_SERVER_FILE_STORE": databases.url(
                ports.postgres, secrets.postgres_password, "mlflow", "+psycopg2"
            ),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(home.path / "mlflow" / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
        },
        # Not /health: that answers before the tables are made, and the first two clients would make them at the same time.
        ready=Http(f"{url}/api/2.0/mlflow/registered-models/search?max_results=1"),
        needs=("databases",),
        address=url,
    )
