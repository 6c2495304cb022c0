"""What the policy must know of the world: which data has passed validation, and what the champion was trained on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from perennial_controller.cases import Facts
from perennial_controller.champions import champion_facts
from perennial_controller.registry import Registry
from perennial_spec.errors import DataError
from perennial_spec.validation import latest_passed


class FactFinder:
    """Asks the store and the registry."""

    def __init__(self, store: str, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    async def find(self, pipeline: str) -> Facts:
        """The facts about a pipeline, now.

        Raises:
            PerennialError: the registry or the store does not answer.
        """
        validated, facts = await asyncio.gather(self._validated(pipeline), champion_facts(self._registry, pipeline))
        return replace(facts, validated_version=validated)

    async def _validated(self, pipeline: str) -> int | None:
        try:
            record = await asyncio.to_thread(latest_passed, self._store, pipeline)
        except OSError as error:
            raise DataError(
                f"the validation records cannot be read ({error.strerror or error})", where=f"{self._store}/{pipeline}"
            ) from None
        return record.data_version if record else None
