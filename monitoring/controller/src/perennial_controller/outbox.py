"""Delivering accepted runs to Airflow: again and again until Airflow has them, each at most once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from perennial_controller.airflow import Airflow, AirflowAway, AirflowRefuses
from perennial_controller.cases import DecisionKind
from perennial_controller.entry import Entry
from perennial_controller.ledger import Ledger
from perennial_controller.metrics import ControllerMetrics
from perennial_controller.rollbacks import Overtaken
from perennial_spec.errors import PerennialError, RegistryError

log = logging.getLogger(__name__)
_BATCH = 10


@dataclass(frozen=True)
class Outbox:
    """The rows whose run Airflow does not have yet. A run's id follows from its row, so a repeat is met with 409 and is done."""

    ledger: Ledger
    airflow: Airflow
    metrics: ControllerMetrics
    clock: Callable[[], datetime]
    take_back: Callable[[Entry], str]
    """Does a rollback; what it came to, in words. Blocks."""
    lease: timedelta
    """How long a row that is being delivered is left alone by other controllers."""
    max_backoff: float
    """Seconds between two attempts, at most."""

    async def deliver_due(self) -> None:
        """Try every run that is due, a few at a time."""
        while batch := await self.ledger.claim(self.clock(), self.lease, _BATCH):
            await asyncio.gather(*(self._deliver(entry) for entry in batch))
            if len(batch) < _BATCH:
                return

    async def _deliver(self, entry: Entry) -> None:
        assert entry.dag_id and entry.run_id  # an undelivered row has them
        if entry.decision == DecisionKind.ROLLING_BACK:
            await self._roll_back(entry)
            return
        conf = {"reason": entry.why().model_dump(mode="json", exclude_none=True)}
        try:
            created = await self.airflow.trigger(entry.dag_id, entry.run_id, conf)
        except AirflowAway as error:
            self._count(entry, "away")
            await self._later(entry, error)
        except AirflowRefuses as error:
            self._count(entry, "refused")
            log.error("run %s is refused for good: %s", entry.run_id, error)  # noqa: TRY400 (the error says it all)
            await self.ledger.refused(entry.id, error.what, self.clock())
        else:
            self._count(entry, "delivered" if created else "already_there")
            log.info("run %s is with Airflow after %d attempt(s)", entry.run_id, entry.attempts)
            await self.ledger.delivered(entry.id, self.clock())

    async def _roll_back(self, entry: Entry) -> None:
        """Moves the traffic itself: seconds count, and it must not need Airflow."""
        count = self.metrics.rollbacks.labels
        try:
            done = await asyncio.to_thread(self.take_back, entry)
        except Overtaken as error:
            count(entry.pipeline, "refused").inc()
            log.warning("decision %d: the traffic is not taken back: %s", entry.id, error)
            await self.ledger.refused(entry.id, error.what, self.clock())
        except RegistryError as error:
            count(entry.pipeline, "away").inc()
            await self._later(entry, error)
        else:
            count(entry.pipeline, "done").inc()
            log.warning("decision %d: %s", entry.id, done)
            await self.ledger.rolled_back(entry.id, self.clock())

    async def _later(self, entry: Entry, error: PerennialError) -> None:
        wait = backoff(entry.attempts, self.max_backoff)
        log.warning("%s is not delivered, attempt %d, next in %.1f s: %s", entry.run_id, entry.attempts, wait, error)
        await self.ledger.postponed(entry.id, error.what, self.clock() + timedelta(seconds=wait))

    def _count(self, entry: Entry, result: str) -> None:
        self.metrics.deliveries.labels(entry.pipeline, result).inc()


def backoff(attempts: int, most: float) -> float:
    """Seconds to wait after so many attempts: doubling from half a second, with jitter so that runs do not come back in step."""
    return min(0.5 * 2.0 ** min(attempts - 1, 20), most) * random.uniform(0.75, 1.0)  # noqa: S311 (not for secrets)
