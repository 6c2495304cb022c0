"""The pipelines as their files say now: read again when a file changes. A broken one keeps what it last said."""

from __future__ import annotations

import logging
from pathlib import Path

from perennial_spec.errors import PerennialError
from perennial_spec.load import Pipeline, discover

log = logging.getLogger(__name__)
_Signature = frozenset[tuple[str, int, int]]


class Specs:
    """All pipelines below a folder. `refresh` belongs into a thread; the rest only looks at what it found."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._signature: _Signature | None = None
        self._good: dict[str, Pipeline] = {}
        self._broken: dict[str, PerennialError] = {}

    def refresh(self) -> bool:
        """Read the pipelines again if a file of theirs has changed. Says whether it did."""
        signature = _signature(self._root)
        if signature == self._signature:
            return False
        catalogue = discover(self._root)
        before = {pipeline.folder: pipeline for pipeline in self._good.values()}
        good = {pipeline.name: pipeline for pipeline in catalogue.pipelines}
        broken = {}
        for entry in catalogue.broken:
            last = before.get(entry.folder)
            name = last.name if last else entry.folder.name
            broken[name] = entry.error
            if last and name not in good:
                good[name] = last
            if str(entry.error) != str(self._broken.get(name)):
                log.warning(
                    "pipeline %s is broken%s: %s", name, ", its last good spec holds" if last else "", entry.error
                )
        self._good, self._broken, self._signature = good, broken, signature
        return True

    def all(self) -> list[Pipeline]:
        """Every pipeline that is good, or was before it broke."""
        return list(self._good.values())

    def broken(self) -> dict[str, PerennialError]:
        """Pipelines that cannot be read now, and why."""
        return dict(self._broken)

    def names(self) -> list[str]:
        return sorted({*self._good, *self._broken})

    def get(self, name: str) -> Pipeline | None:
        """The pipeline of that name, or None when there is none.

        Raises:
            SpecError: it is broken, and has been since the controller started.
        """
        if pipeline := self._good.get(name):
            return pipeline
        if error := self._broken.get(name):
            raise error
        return None


def _signature(root: Path) -> _Signature:
    """Changes when a file directly in a pipeline's folder does."""
    files = (file for pattern in ("*/*.yaml", "*/*.py", "*/*.sql") for file in root.glob(pattern))
    found = set()
    for file in files:
        try:
            status = file.stat()
        except OSError:  # gone between the listing and now: the next look sees it
            continue
        found.add((str(file), status.st_mtime_ns, status.st_size))
    return frozenset(found)
