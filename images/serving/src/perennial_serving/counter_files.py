"""Counters of several workers, each in files of its own, which any of them sums up.

    <folder>/workers.json                                          the supervisor's: which processes there are
    <folder>/lock                                                  held, shared, by every worker
    <folder>/<slot>.numbers                                        `ServerCounters` of one worker
    <folder>/versions/<pipeline>@<version>-<digest>/facts.json     names of its series
                                                   /<slot>.cells   `VersionCounters` of one worker
                                                   /lock           held, shared, by every worker that has the version

A slot outlives the worker in it: who comes after a worker that was killed counts on where that one was. A version's folder goes when the
last worker has let go of it; the system does that for a worker that is killed. All processes are of one machine and start.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from perennial_features.reference import Counts
from perennial_serving import usage
from perennial_serving.counter_table import SIZE, Numbers
from perennial_serving.counting import Counted, ServerCounters, VersionCounters, size_of
from perennial_serving.exposition import VersionFacts, VersionText
from perennial_serving.held import hold, let_go, sweep
from perennial_serving.model import LoadedModel
from perennial_serving.post import Roll, replace_text
from perennial_spec.errors import PlatformError

_NUMBERS, _CELLS = ".numbers", ".cells"
_FACTS = "facts.json"


class CounterFiles:
    """The counters of the worker at `slot`, and the tally of all; see `metrics.Tally`.

    Args:
        folder: private to the workers of one supervisor, best in memory: what is counted is written to it all the time.

    Raises:
        PlatformError: the folder cannot be written, or is full.
    """

    def __init__(self, folder: Path, slot: int) -> None:
        self._folder, self._slot = folder, slot
        self._versions = folder / "versions"
        with _explained(folder):
            self._held = hold(folder)
            self._versions.mkdir(exist_ok=True)
            own = _mapped(folder / f"{slot}{_NUMBERS}", SIZE)
        self.counters = ServerCounters(Numbers(memoryview(own)))
        self._everyone: dict[str, ServerCounters] = {}
        """By file; read only."""
        self._lock = threading.Lock()
        """Two scrapes at once must not read up on names at once."""
        self._texts: dict[str, VersionText] = {}

    def abandon(self) -> None:
        """At the end, when there is no supervisor who would remove the folder: the last worker does."""
        let_go(self._folder, self._held)

    # -- counting --

    def counting(self, model: LoadedModel) -> LoadedModel:
        """`model`, whose counters lie in a file for as long as anybody has it.

        Raises:
            PlatformError: the folder cannot be written, or is full.
        """
        facts = json.dumps(asdict(VersionFacts.of(model.pipeline, model.version, model.reference)))
        size = size_of(model.reference)
        digest = hashlib.sha256(f"{size} {facts}".encode()).hexdigest()[:12]
        place = self._versions / f"{model.pipeline}@{model.version}-{digest}"
        with _explained(self._folder):
            held = hold(place)
            replace_text(place / _FACTS, facts)
            cells = np.frombuffer(_mapped(place / f"{self._slot}{_CELLS}", size * 8), np.int64)
        counters = VersionCounters(model.reference, cells)
        # At the end of the process the system lets go; the counts stay, since others still have the version.
        weakref.finalize(counters, let_go, place, held).atexit = False
        return replace(model, counters=counters)

    def sweep(self) -> None:
        """Remove versions that nobody has: those of workers that were killed, and that left the route before another came."""
        sweep([Path(place) for place in _entries(self._versions)])

    # -- adding up --

    def versions(self) -> list[tuple[VersionText, Counted]]:
        """Every version that some worker has, in order; of two of one name, the one that was loaded last."""
        found: dict[tuple[str, str], tuple[float, str, VersionText, Counted]] = {}
        for place in _entries(self._versions):
            with suppress(FileNotFoundError):  # removed since
                text, cells = self._text(place), _sum(place)
                entry = (os.stat(f"{place}/{_FACTS}").st_mtime, place, text, text.counted(cells))  # noqa: PTH116 (at every scrape)
                name = (text.pipeline, text.version)
                if name not in found or entry[:2] > found[name][:2]:
                    found[name] = entry
        return [(text, counted) for _, (_, _, text, counted) in sorted(found.items(), key=lambda item: item[0])]

    def _text(self, place: str) -> VersionText:
        """What stands in the version's folder, whose name has the digest of it."""
        found = self._texts.get(place)
        if found is None:
            facts = VersionFacts(**json.loads(Path(place, _FACTS).read_bytes()))
            for gone in self._texts.keys() - set(_entries(self._versions)):
                del self._texts[gone]
            found = self._texts[place] = VersionText(facts)
        return found

    def tables(self) -> dict[str, dict[tuple[str, ...], float]]:
        """`ServerCounters.read`, summed over all workers that there are or were."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        with self._lock:
            for counters in self._everyones():
                for name, values in counters.read().items():
                    total = found.setdefault(name, {})
                    for key, value in values.items():
                        total[key] = total.get(key, 0) + value
        return found

    def _everyones(self) -> Iterator[ServerCounters]:
        for file in _entries(self._folder):
            if file.endswith(_NUMBERS):
                if file not in self._everyone and (held := _read(file)) is not None:
                    self._everyone[file] = ServerCounters(Numbers(memoryview(held)))
                if counters := self._everyone.get(file):
                    counters.numbers.refresh()
                    yield counters

    def processes(self) -> str:
        roll = Roll.read(self._folder)
        return usage.text(roll.supervisor, roll.workers)

    def workers(self) -> int:
        return Roll.read(self._folder).answering


def _sum(place: str) -> Counts:
    """int64[cells]: over all slots."""
    total: Counts | None = None
    for file in _entries(place):
        if file.endswith(_CELLS) and (held := _read(file)) is not None:
            cells = np.frombuffer(held, np.int64)
            total = cells.copy() if total is None else total + cells
    if total is None:
        raise FileNotFoundError(place)
    return total


def _entries(folder: str | Path) -> list[str]:
    """Paths of what is in the folder, in order; as text, since a scrape has no time for more."""
    try:
        return sorted(f"{folder}/{name}" for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except FileNotFoundError:
        return []


def _mapped(file: Path, size: int) -> mmap.mmap:
    """The file, for counting. Its space is taken at once: a folder that is full must be an error here, not a signal later."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _read(file: str) -> mmap.mmap | None:
    """The file, for reading: a number is seen as it was or as it is, never half of each. None while it is being made.

    Raises:
        FileNotFoundError: there is none.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except ValueError:  # empty
        return None
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Errors of the system, as the operator needs to know them."""
    try:
        yield
    except OSError as error:
        raise PlatformError(
            f"the counters of the workers have no place: {error.strerror}",
            where=str(folder),
            expected="a folder that can be written, with some megabytes of room",
            next="make room there",
        ) from None
