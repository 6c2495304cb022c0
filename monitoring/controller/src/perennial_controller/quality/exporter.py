"""The quality of every pipeline's versions, kept up to date, and as metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from perennial_controller.quality.families import families
from perennial_controller.quality.followed import Followed, Measured, PipelineQuality
from perennial_controller.specs import Specs

log = logging.getLogger(__name__)


class Exporter:
    """A Prometheus collector. `refresh` belongs into a thread."""

    def __init__(self, store: str, specs: Specs, clock: Callable[[], int]) -> None:
        self._store = store.rstrip("/")
        self._specs = specs
        self._clock = clock
        self._followed: dict[str, Followed] = {}
        self._lock = threading.Lock()
        self._quality: dict[str, PipelineQuality] = {}
        self._trouble: dict[str, str] = {}

    def refresh(self) -> None:
        """Follow the specs and every pipeline's logs. One pipeline's trouble does not hold the others: it keeps its last figures."""
        self._specs.refresh()
        found: dict[str, PipelineQuality] = {}
        followed: dict[str, Followed] = {}
        for pipeline in self._specs.all():
            wanted = Measured.of(pipeline.spec)
            known = self._followed.get(pipeline.name)
            if known is None or known.wanted != wanted:
                known = Followed(self._store, pipeline.name, wanted, self._clock())
            followed[pipeline.name] = known
            found[pipeline.name] = self._follow(pipeline.name, known)
        self._followed = followed
        with self._lock:
            self._quality = found
            self._trouble = {name: trouble for name, trouble in self._trouble.items() if name in found}

    def _follow(self, name: str, followed: Followed) -> PipelineQuality:
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            quality = followed.refresh(self._clock())
        except (OSError, DeltaError, pa.ArrowException, ValueError, KeyError) as error:
            if str(error) != self._trouble.get(name):
                log.warning("the logs of %s cannot be read, its last figures hold: %s", name, error)
            self._trouble[name] = str(error)
            return self._quality.get(name, PipelineQuality())
        self._trouble.pop(name, None)
        return quality

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            found, trouble = self._quality, set(self._trouble)
        yield from families(found, trouble)
