"""The registry, as several workers of one machine share it: one asks, and all see what it was told.

Who holds the lock asks, at the pace that the settings say, and writes the answer, or that there was none, into a file. The others read the
file, often: it costs next to nothing, and so all put a new route in force within a moment. The system takes the lock from a
worker that ends, however it ends; who finds it free at its next look asks from then on.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path

from perennial_serving.counter_table import Table
from perennial_serving.pace import Pace
from perennial_serving.registry import Listing, Registry
from perennial_serving.settings import Settings
from perennial_spec.errors import RegistryError

LOOK_SECONDS = 0.2
"""How often a worker reads what was said, or asks when it is time."""
_PATIENCE_SECONDS = 10.0
"""Beside the time that asking may take: who holds the lock and is silent for longer is stuck."""


@dataclass(frozen=True)
class Said:
    """What the registry said when it was asked."""

    listings: tuple[Listing, ...] = ()
    error: RegistryError | None = None
    answered: float = 0.0
    """See `Registry.answered`."""
    moment: float = field(default_factory=time.monotonic)
    """By the clock that all processes of the machine share."""

    def told(self) -> tuple[Listing, ...]:
        """Raises:
        RegistryError: the registry did not answer.
        """
        if self.error is not None:
            raise self.error
        return self.listings


class SharedRegistry(Registry):
    """The registry at `url`, for one of several workers.

    Args:
        folder: private to the workers; the lock and the file are there.
    """

    def __init__(self, url: str, settings: Settings, folder: Path, polls: Table[int] | None = None) -> None:
        super().__init__(url, settings.registry_timeout, settings.pipelines, polls)
        self._settings, self._pace = settings, Pace(settings)
        self._file, self._temporary = folder / "registry", folder / f".registry.{os.getpid()}"
        self._lock = os.open(folder / "registry.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._asks = False
        self._due = 0.0
        self._said: Said | None = None

    def close(self) -> None:
        """Another worker may ask from now on."""
        super().close()
        os.close(self._lock)

    def routed(self) -> tuple[Listing, ...]:
        """Every registered model that has a route, as the registry said last.

        Raises:
            RegistryError: it did not answer, or the worker that asks it says nothing.
        """
        said = self._ask() if self._may_ask() else self._read()
        self.answered = said.answered
        return said.told()

    def _may_ask(self) -> bool:
        if not self._asks:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._asks = True
        return True

    def _ask(self) -> Said:
        if self._said is None or time.monotonic() >= self._due:
            start = time.monotonic()
            try:
                self._said = Said(super().routed(), answered=self.answered)
                wait = self._pace.answered(time.monotonic() - start)
            except RegistryError as error:
                self._said = Said(error=error, answered=self.answered)
                wait = self._pace.failed()
            self._temporary.write_bytes(pickle.dumps(self._said))
            self._temporary.replace(self._file)
            self._due = time.monotonic() + wait
        return self._said

    def _read(self) -> Said:
        try:
            said: Said = pickle.loads(self._file.read_bytes())  # noqa: S301 (from a worker, in a folder of the workers alone)
        except FileNotFoundError:
            raise RegistryError("the worker that asks the registry has not said anything yet") from None
        pause = max(self._settings.poll_seconds, self._settings.poll_max_seconds) * (1 + self._settings.poll_jitter)
        age = time.monotonic() - said.moment
        if age > pause + 2 * self._settings.registry_timeout + _PATIENCE_SECONDS:
            raise RegistryError(f"the worker that asks the registry has said nothing for {age:.0f} s")
        return said
