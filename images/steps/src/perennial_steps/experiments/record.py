"""The record of an experiment, in a tag of the challenger: when it began, and in the end what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from perennial_registry.registry import ModelVersion, Registry
from perennial_spec import names


@dataclass(frozen=True)
class Record:
    """What `names.TAG_EXPERIMENT` holds."""

    strategy: str
    run_key: str
    champion: str
    """The version that it is compared with."""
    since: str
    """ISO timestamp: answers from then on count."""
    outcome: Mapping[str, Any] | None = None
    """verdict, summary and outputs of the last look, once it is over."""

    @property
    def began(self) -> datetime:
        return datetime.fromisoformat(self.since)


def read(challenger: ModelVersion, run_key: str) -> Record | None:
    """The record of that run; None where it has not begun one with this version."""
    try:
        record = Record(**json.loads(challenger.tags[names.TAG_EXPERIMENT]))
    except (KeyError, ValueError, TypeError):
        return None
    return record if record.run_key == run_key else None


def write(registry: Registry, challenger: ModelVersion, record: Record) -> None:
    """Keep it with the version.

    Raises:
        RegistryError: the registry is away.
    """
    kept = {key: value for key, value in asdict(record).items() if value is not None}
    registry.tag(challenger.name, challenger.version, names.TAG_EXPERIMENT, json.dumps(kept))
