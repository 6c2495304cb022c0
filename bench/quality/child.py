"""An exporter in a process of its own, so that its memory is its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self


class Child:
    """A running exporter whose clock is set from outside."""

    def __init__(self, store: Path, pipelines: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._ours, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, str(store), str(pipelines)), daemon=True)
        self._process.start()

    def resident(self) -> float:
        """MB, with all that it needs imported."""
        self._ours.send(0)
        found: float = self._ours.recv()
        return found

    def refresh(self, now: int) -> tuple[float, float, float]:
        """Refresh at this time (microseconds since 1970): seconds that it took, resident MB, and predictions with labels."""
        self._ours.send(now)
        found: tuple[float, float, float] = self._ours.recv()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.send(None)
        self._process.join(30)


def _serve(commands: Connection, store: str, pipelines: str) -> None:
    import deltalake.fs  # noqa: F401 (these are imported when they are needed first: not to be measured)
    import pyarrow.parquet  # noqa: F401
    import sklearn.isotonic  # noqa: F401

    from perennial_controller.quality.exporter import Exporter
    from perennial_controller.specs import Specs
    from perennial_spec import names

    now = 0
    exporter = Exporter(store, Specs(Path(pipelines)), lambda: now)
    while (command := commands.recv()) is not None:
        if command == 0:
            commands.send(_resident())
            continue
        now = command
        began = time.perf_counter()
        exporter.refresh()
        took = time.perf_counter() - began
        samples = [sample for family in exporter.collect() for sample in family.samples]
        labels = sum(sample.value for sample in samples if sample.name == names.QUALITY_LABELS)
        commands.send((took, _resident(), labels))


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
