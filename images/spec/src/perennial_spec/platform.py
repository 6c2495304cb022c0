"""Where the parts of the platform are, read from the environment once, at the edge of each process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from perennial_spec.errors import PlatformError


@dataclass(frozen=True)
class Platform:
    """Endpoints and places. A field is None when the process was not told; `need` turns that into a clear error."""

    pipelines_dir: str | None = None
    """PERENNIAL_PIPELINES_DIR: the folder with one folder per pipeline."""
    store: str | None = None
    """PERENNIAL_STORE: folder or URI below which each pipeline has its Delta tables: <store>/<pipeline>/{data,predictions,labels}."""
    lake: str | None = None
    """PERENNIAL_LAKE: where the demonstration's sources are."""
    mlflow_url: str | None = None
    """MLFLOW_TRACKING_URI."""
    prometheus_url: str | None = None
    """PERENNIAL_PROMETHEUS_URL."""
    alertmanager_url: str | None = None
    """PERENNIAL_ALERTMANAGER_URL."""
    airflow_url: str | None = None
    """PERENNIAL_AIRFLOW_URL."""
    airflow_credentials_file: str | None = None
    """PERENNIAL_AIRFLOW_CREDENTIALS_FILE: JSON with username and password."""
    controller_url: str | None = None
    """PERENNIAL_CONTROLLER_URL."""
    token_file: str | None = None
    """PERENNIAL_TOKEN_FILE: the controller's bearer token."""
    server_url: str | None = None
    """PERENNIAL_SERVER_URL."""
    database_url: str | None = None
    """PERENNIAL_DATABASE_URL: the ledger; postgresql://... without a driver. A secret: never in argv or logs."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Platform:
        environment = os.environ if environment is None else environment
        return cls(**{field.name: environment.get(variable(field.name)) or None for field in fields(cls)})

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads back."""
        values = {variable(field.name): getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def need(self, field: str) -> str:
        """The value of `field`.

        Raises:
            PlatformError: this process was not told.
        """
        value: str | None = getattr(self, field)
        if value is None:
            raise PlatformError(
                f"{variable(field)} is not set",
                expected="the platform's environment",
                next="start the platform with: perennial up, or set the variable",
            )
        return value

    def pipelines_path(self) -> Path:
        return Path(self.need("pipelines_dir"))

    def table(self, pipeline: str, table: str) -> str:
        """URI of a Delta table of a pipeline: `data`, `predictions` or `labels`."""
        return f"{self.need('store').rstrip('/')}/{pipeline}/{table}"


def variable(field: str) -> str:
    """The environment variable of a field."""
    return "MLFLOW_TRACKING_URI" if field == "mlflow_url" else f"PERENNIAL_{field.upper()}"
