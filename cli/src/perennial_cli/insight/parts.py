"""The four parts that know something, as one, and what is read from each in the same way for `why` and `report`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from perennial_cli.clients.airflow import Airflow
from perennial_cli.clients.controller import Controller, Decision
from perennial_cli.clients.prometheus import Prometheus
from perennial_cli.insight.choose import time_of
from perennial_cli.insight.story import Gate, Version
from perennial_spec import names
from perennial_spec.platform import Platform

if TYPE_CHECKING:
    from perennial_registry.registry import ModelVersion, Registry

PAGE = 200
"""Rows of the ledger in one answer."""
MOST_PAGES = 50


@dataclass(frozen=True)
class Parts:
    """Clients of the ledger's controller, Prometheus, Airflow and the registry."""

    platform: Platform
    controller: Controller
    prometheus: Prometheus
    airflow: Airflow
    registry: Registry


@contextmanager
def parts_of(platform: Platform) -> Iterator[Parts]:
    """Clients that give up after one try: a person waits.

    Raises:
        PlatformError: the platform's endpoints are not known.
    """
    from perennial_registry.mlflow_rest import Patience
    from perennial_registry.registry import Registry

    patience = Patience(connect=3.0, read=10.0, attempts=1)
    parts = Parts(
        platform,
        Controller(platform),
        Prometheus(platform),
        Airflow(platform),
        Registry(platform.need("mlflow_url"), patience),
    )
    try:
        yield parts
    finally:
        for client in (parts.controller, parts.prometheus, parts.airflow, parts.registry):
            client.close()


def rows_since(controller: Controller, pipeline: str, since: datetime) -> list[Decision]:
    """The ledger's rows of a pipeline from `since` on, the newest first."""
    found: list[Decision] = []
    for page in _pages(controller, pipeline):
        found += [decision for decision in page if decision.received >= since]
        if not page or page[-1].received < since:
            break
    return found


def rows_until(controller: Controller, pipeline: str, kinds: frozenset[str]) -> list[Decision]:
    """The newest rows, page by page, until one of `kinds` is among them."""
    found: list[Decision] = []
    for page in _pages(controller, pipeline):
        found += page
        if any(decision.kind in kinds for decision in page):
            break
    return found


def _pages(controller: Controller, pipeline: str) -> Iterator[list[Decision]]:
    before: int | None = None
    for _ in range(MOST_PAGES):
        page = controller.decisions(pipeline, PAGE, before)
        yield page
        if len(page) < PAGE:
            return
        before = page[-1].id


def version_of(found: ModelVersion) -> Version:
    """A model version as its tags tell it; tags that cannot be read are left out."""
    tags = found.tags
    return Version(
        number=found.version,
        verdict=tags.get(names.TAG_VERDICT, "registered"),
        verdict_reason=tags.get(names.TAG_VERDICT_REASON, ""),
        gates=tuple(_gates(tags.get(names.TAG_GATES, ""))),
        data_version=tags.get(names.TAG_DATA_VERSION, ""),
        trained_at=found.created_at or None,
        promoted_at=time_of(tags.get(names.TAG_PROMOTED_AT)),
        why=_reason(tags.get(names.TAG_REASON, "")),
        aliases=found.aliases,
    )


def _gates(text: str) -> Iterator[Gate]:
    rows = _json(text)
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and "gate" in row:
            value = row.get("value")
            number = float(value) if isinstance(value, int | float) else None
            yield Gate(str(row["gate"]), number, str(row.get("bound", "")), bool(row.get("passed")))


def _reason(text: str) -> str:
    found = _json(text)
    return str(found.get("summary", "")) if isinstance(found, dict) else ""


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def utc_now() -> datetime:
    return datetime.now(UTC)
