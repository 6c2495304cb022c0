"""Prometheus, as far as the commands of this package ask it."""

from __future__ import annotations

from dataclasses import dataclass

from perennial_cli.clients.http import TIMEOUT_SECONDS, ask, said
from perennial_spec.errors import MonitoringError
from perennial_spec.platform import Platform


@dataclass(frozen=True)
class Sample:
    """One series of an instant query."""

    labels: dict[str, str]
    value: float


class Prometheus:
    def __init__(self, platform: Platform) -> None:
        import httpx

        self._client = httpx.Client(base_url=platform.need("prometheus_url"), timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._client.close()

    def query(self, expression: str) -> list[Sample]:
        """The instant vector that `expression` gives now.

        Raises:
            MonitoringError: Prometheus does not like the expression.
        """
        response = ask(self._client, "GET", "/api/v1/query", part="prometheus", params={"query": expression})
        if response.status_code != 200:
            raise MonitoringError(f"the query was answered with {said(response)}", where=expression)
        return [Sample(row["metric"], float(row["value"][1])) for row in response.json()["data"]["result"]]
