"""What comes in, as it is written into the ledger, and the names that follow from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perennial_controller.cases import EventKind
from perennial_spec import names

MAX_SUMMARY = 500
MAX_NAME = 128
"""Characters of an unknown pipeline's or alert's name that the ledger keeps."""


ALL_PIPELINES = "*"
"""In place of a pipeline's name: no pipeline can be named so."""


@dataclass(frozen=True)
class NewEvent:
    """One event to be written."""

    kind: EventKind
    pipeline: str
    dedupe_key: str
    """Two events of one key are one event."""
    summary: str
    """For people, and for the reason that is kept with the model version."""
    payload: dict[str, Any] = field(default_factory=dict)
    alert: str | None = None
    action: str | None = None
    actor: str | None = None
    resolved: bool = False


def successor_key(dedupe_key: str) -> str:
    """The key of the row that follows an alert's: `#2` after the first, `#3` after that. An alert's own key ends in its time."""
    first, _, generation = dedupe_key.rpartition("#")
    return f"{first}#{int(generation) + 1}" if first and generation.isdigit() else f"{dedupe_key}#2"


def target_dag(kind: EventKind, pipeline: str) -> str:
    """The DAG that an event of this kind starts."""
    return names.data_dag_id(pipeline) if kind == "data" else names.dag_id(pipeline)


def run_id_of(kind: EventKind, dedupe_key: str, received_at: datetime) -> str:
    """The id of the run that an event starts: the same however often it is delivered.

    The time is the ledger row's, written once; the digest makes two events of one second differ.
    """
    digest = hashlib.sha256(dedupe_key.encode()).hexdigest()[:12]
    return f"{kind}__{received_at:%Y%m%dT%H%M%S}__{digest}"
