"""The dashboards' queries as Grafana asks them, for promtool and for a real Prometheus."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from perennial_dashboards.panels import Dashboard, Number, Query, Table
from perennial_dashboards.render import BOARDS

GRAFANA = {"__rate_interval": "1m", "__interval": "1m", "__range": "15m"}
"""What Grafana puts in by itself, for a quarter of an hour on a screen."""
SECONDS, STEP = 900, 15


@dataclass(frozen=True)
class Asked:
    """One query, and where it stands."""

    board: Dashboard
    place: str
    query: Query
    now: bool
    """Instant, not over time."""

    def __str__(self) -> str:
        return f"{self.board.file}: {self.place}: {self.query.expr}"


def every_query() -> Iterator[Asked]:
    """Those of all panels and marks of all dashboards."""
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                yield Asked(board, panel.title, query, isinstance(panel, Number | Table))
        for mark in board.marks:
            yield Asked(board, mark.name, mark.query, now=False)


def filled(expression: str, variables: Mapping[str, str]) -> str:
    """With every variable's value; KeyError for one that nobody sets."""
    known = {**GRAFANA, **variables}
    return re.sub(r"\$(\w+)", lambda found: known[found.group(1)], expression)


def answered(url: str, asked: Asked, variables: Mapping[str, str]) -> bool:
    """Whether a Prometheus has at least one figure for it, now or within the last quarter of an hour.

    A query that is drawn as 0 without data is asked as it is written.
    """
    expression, end = filled(asked.query.expr, variables), time.time()
    if asked.now:
        found = _ask(f"{url}/api/v1/query", {"query": expression})
        samples = [row["value"] for row in found]
    else:
        over = {"start": f"{end - SECONDS}", "end": f"{end}", "step": f"{STEP}"}
        found = _ask(f"{url}/api/v1/query_range", {"query": expression, **over})
        samples = [sample for row in found for sample in row["values"]]
    return any(not math.isnan(float(value)) for _, value in samples)


def values(url: str, question: str, variables: Mapping[str, str]) -> list[str]:
    """What Grafana offers for a variable: its `label_values(SERIES, LABEL)`."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", question)
    assert found, question
    return list(_ask(f"{url}/api/v1/label/{found.group(2)}/values", {"match[]": filled(found.group(1), variables)}))


def _ask(url: str, parameters: Mapping[str, str]) -> list[Any]:
    answer = httpx.get(url, params=parameters, timeout=30)
    assert answer.status_code == 200, f"{parameters}: {answer.text}"
    data = answer.json()["data"]
    return list(data["result"] if isinstance(data, dict) else data)
