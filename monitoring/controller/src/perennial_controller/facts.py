"""What the policy must know of the world: which data has passed validation, and what the champion was trained on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from perennial_controller.cases import Facts
from perennial_controller.champions import champion_facts
from perennial_controller.registry import Registry
from perennial_spec.errors import DataError
from perennial_spec.validation import latest_passed, read_record, records

_RECORDS = 200
"""So many versions back, at most."""


class FactFinder:
    """Asks the store and the registry."""

    def __init__(self, store: str, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    async def find(self, pipeline: str, *, labels: bool = False) -> Facts:
        """The facts about a pipeline, now.

        Args:
            pipeline: its name.
            labels: count rows with a label, too.

        Raises:
            PerennialError: the registry or the store does not answer.
        """
        validated, facts = await asyncio.gather(self._validated(pipeline), champion_facts(self._registry, pipeline))
        since = facts.champion_data_version or 0
        labelled = await asyncio.to_thread(_labelled, self._store, pipeline, since) if labels else {}
        return replace(facts, validated_version=validated, labelled=labelled)

    async def _validated(self, pipeline: str) -> int | None:
        try:
            record = await asyncio.to_thread(latest_passed, self._store, pipeline)
        except OSError as error:
            raise DataError(
                f"the validation records cannot be read ({error.strerror or error})", where=f"{self._store}/{pipeline}"
            ) from None
        return record.data_version if record else None


def _labelled(store: str, pipeline: str, since: int) -> dict[int, int]:
    """Rows with a label of version `since` and newer ones. A record that cannot be read counts nothing: `latest_passed` tells of it."""
    found: dict[int, int] = {}
    for version in [version for version in records(store, pipeline) if version >= since][:_RECORDS]:
        with suppress(OSError, DataError):
            record = read_record(store, pipeline, version)
            if record and record.labelled is not None:
                found[version] = record.labelled
    return found
