"""Versions without traffic that are kept loaded: of each pipeline the one that a rollback goes back to (alias `previous`).

Loading a version and checking it takes seconds of a busy processor, which is too long while a bad one answers. On standby it is seen by
nobody: it takes memory, and has no series.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from perennial_serving.counting import VersionCounters
from perennial_serving.model import LoadedModel

Key = tuple[str, str]
"""Pipeline and version."""


class Standby:
    """For one thread."""

    def __init__(self) -> None:
        self._models: dict[Key, LoadedModel] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._models

    def keep(self, model: LoadedModel) -> None:
        """Its counters stay with those who have them still: when it returns, it begins with new ones, as any version that is loaded."""
        self._models[model.pipeline, model.version] = replace(model, counters=VersionCounters(model.reference))

    def take(self, key: Key) -> LoadedModel | None:
        """The version, which is on standby no longer; None: it was not."""
        return self._models.pop(key, None)

    def let_go(self, pipeline: str, but: str | None) -> list[LoadedModel]:
        """Give up the pipeline's versions but one; those that were given up."""
        gone = [key for key in self._models if key[0] == pipeline and key[1] != but]
        return [self._models.pop(key) for key in gone]

    def folders(self, pipeline: str) -> set[Path]:
        """Of the pipeline's bundles."""
        return {model.folder for (owner, _), model in self._models.items() if owner == pipeline}
