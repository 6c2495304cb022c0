"""Prometheus, as far as the commands of this package ask it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from perennial_cli.clients.http import TIMEOUT_SECONDS, ask, said
from perennial_spec.errors import MonitoringError
from perennial_spec.platform import Platform

RANGE_TIMEOUT_SECONDS = 60.0
"""A range over weeks reads many samples, where an instant reads a few."""


@dataclass(frozen=True)
class Sample:
    """One series of an instant query."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Series:
    """One series of a range query."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]
    """`(seconds since the epoch, value)`, in order; a step without a value is left out."""


@dataclass(frozen=True)
class Span:
    """A stretch of time, and the distance between two points in it."""

    start: datetime
    end: datetime
    step: timedelta


class Prometheus:
    def __init__(self, platform: Platform) -> None:
        import httpx

        self._client = httpx.Client(base_url=platform.need("prometheus_url"), timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._client.close()

    def query(self, expression: str, at: datetime | None = None) -> list[Sample]:
        """The instant vector that `expression` gives at a moment, now when None.

        Raises:
            MonitoringError: Prometheus does not like the expression.
        """
        asked = {"query": expression} | ({"time": f"{at.timestamp():.3f}"} if at else {})
        return [Sample(row["metric"], float(row["value"][1])) for row in self._ask("query", asked, expression)]

    def range(self, expression: str, span: Span) -> list[Series]:
        """What `expression` gives at each step of `span`. Raises as `query`."""
        asked = {
            "query": expression,
            "start": f"{span.start.timestamp():.3f}",
            "end": f"{span.end.timestamp():.3f}",
            "step": f"{span.step.total_seconds():g}",
        }
        rows = self._ask("query_range", asked, expression, RANGE_TIMEOUT_SECONDS)
        return [Series(row["metric"], tuple((float(at), float(text)) for at, text in row["values"])) for row in rows]

    def _ask(
        self, path: str, asked: dict[str, str], expression: str, timeout: float = TIMEOUT_SECONDS
    ) -> list[dict[str, Any]]:
        # POST: an expression over many names may be longer than a URL.
        response = ask(self._client, "POST", f"/api/v1/{path}", part="prometheus", data=asked, timeout=timeout)
        if response.status_code != 200:
            raise MonitoringError(f"the query was answered with {said(response)}", where=expression)
        found: list[dict[str, Any]] = response.json()["data"]["result"]
        return found
