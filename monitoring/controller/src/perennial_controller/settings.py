"""What the controller is told by its environment, read once when the process starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from perennial_spec.errors import PlatformError
from perennial_spec.platform import Platform

DEFAULT_PORT = 8801
DEFAULT_QUALITY_PORT = 8802


SECRET_VARIABLE = "PERENNIAL_MLFLOW_WEBHOOK_SECRET_FILE"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class Settings:
    """Where the controller listens and how often it looks."""

    platform: Platform
    host: str = "127.0.0.1"
    """PERENNIAL_HOST: the address to listen on; loopback unless it is told otherwise."""
    port: int = DEFAULT_PORT
    """PERENNIAL_PORT; 0 takes a free one."""
    decide_every: float = 2.0
    """Seconds between two looks at the alerts that wait for a cooldown, a budget, a run or new data."""
    deliver_every: float = 1.0
    """Seconds between two looks at the outbox; a new decision is delivered at once."""
    watch_every: float = 2.0
    """Seconds between two questions to Airflow about runs that have not finished."""
    reload_every: float = 2.0
    """Seconds between two looks at the pipelines' files."""
    champions_every: float = 5.0
    """Seconds between two questions to the registry which versions are champions."""
    http_timeout: float = 10.0
    """Seconds that Airflow and the registry have to answer."""
    max_backoff: float = 30.0
    """Seconds between two deliveries of one decision, at most."""
    watchdog_after: timedelta = timedelta(minutes=5)
    """Without PerennialWatchdog for so long, alerts no longer arrive. Several times Alertmanager's `repeat_interval` for it."""
    figures_every: float = 5.0
    """Seconds for which the figures of the runs hold: reading them anew takes the ledger longer the more runs it knows."""
    look_every: float = 5.0
    """Seconds between two looks whether it came."""
    alert_expiry: timedelta = timedelta(hours=24)
    """An alert of which no copy came for so long has ended, even if nobody said so. Longer than Alertmanager's `repeat_interval`."""

    mlflow_secret_file: str | None = None
    """PERENNIAL_MLFLOW_WEBHOOK_SECRET_FILE: the secret that MLflow signs its webhook with; without it there is no webhook."""
    public_airflow: str | None = None
    """PERENNIAL_PUBLIC_AIRFLOW_URL: Airflow's address in a browser, for the pages' links; PERENNIAL_AIRFLOW_URL when not given."""
    public_mlflow: str | None = None
    """PERENNIAL_PUBLIC_MLFLOW_URL: likewise MLflow's; MLFLOW_TRACKING_URI when not given."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, port: int = DEFAULT_PORT) -> Settings:
        """Raises PlatformError when PERENNIAL_PORT is no port, or an address none."""
        environment = os.environ if environment is None else environment
        platform = Platform.from_environment(environment)
        return cls(
            platform=platform,
            mlflow_secret_file=environment.get(SECRET_VARIABLE) or None,
            public_airflow=_public(environment, "PERENNIAL_PUBLIC_AIRFLOW_URL", platform.airflow_url),
            public_mlflow=_public(environment, "PERENNIAL_PUBLIC_MLFLOW_URL", platform.mlflow_url),
            host=environment.get("PERENNIAL_HOST") or "127.0.0.1",
            port=_port(environment.get("PERENNIAL_PORT") or str(port)),
        )


def _public(environment: Mapping[str, str], name: str, otherwise: str | None) -> str | None:
    given = environment.get(name)
    if given and not given.startswith(("http://", "https://")):
        raise PlatformError(
            f"{name} is {given!r}", expected="the address that a browser reaches it by: http://... or https://..."
        )
    url = given or otherwise
    return url.rstrip("/") if url else None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise PlatformError(
            f"{text!r} is not a port", where="PERENNIAL_PORT", expected="a number from 0 (any free one) to 65535"
        )
    return int(text)
