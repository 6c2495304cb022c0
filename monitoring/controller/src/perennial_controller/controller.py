"""The controller as a whole: its parts, made once, and the loops that keep them going."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy.exc import SQLAlchemyError

from perennial_controller.airflow import Airflow
from perennial_controller.auth import TokenFile
from perennial_controller.champions import Champions
from perennial_controller.decider import Decider
from perennial_controller.facts import FactFinder
from perennial_controller.freshness import DataClock
from perennial_controller.ledger import Ledger, engine_of
from perennial_controller.loop_metrics import LoopMetrics
from perennial_controller.marks import schedule_mark
from perennial_controller.metrics import ControllerMetrics
from perennial_controller.outbox import Outbox
from perennial_controller.outcomes import Outcomes
from perennial_controller.registry import Registry
from perennial_controller.rollbacks import Rollbacks
from perennial_controller.schedules import due
from perennial_controller.settings import SECRET_VARIABLE, Settings
from perennial_controller.specs import Specs
from perennial_controller.thresholds import Thresholds
from perennial_controller.watchdog import Watchdog
from perennial_spec.errors import PerennialError

log = logging.getLogger(__name__)
_REST = 4.0
"""A loop rests so many times as long as its last round took, or as long as it waits anyway: it takes a fifth of a core at most."""
LEDGER_ERRORS = (SQLAlchemyError, OSError, TimeoutError)
"""What a database that is away looks like through SQLAlchemy and asyncpg."""


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Controller:
    """Parts and state. `start` and `stop` belong to the application's lifespan."""

    settings: Settings
    token: TokenFile
    mlflow_secret: TokenFile | None
    """None: there is no webhook for MLflow."""
    ledger: Ledger
    specs: Specs
    metrics: ControllerMetrics
    decider: Decider
    outbox: Outbox
    outcomes: Outcomes
    data_clock: DataClock
    loop: LoopMetrics
    airflow: Airflow
    registry: Registry
    champions: Champions
    watchdog: Watchdog
    http: httpx.AsyncClient
    open_events: asyncio.Event
    """Set when there may be something to decide."""
    undelivered: asyncio.Event
    """Set when there may be something to deliver."""
    migrated: bool = False
    _schedules: frozenset[str] | None = None
    """Those that the ledger has noted."""
    _ticks: frozenset[str] = frozenset()
    """Keys of the newest ticks, which are written: none is counted as a copy again and again."""
    _figures_read: float = 0.0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def of(cls, settings: Settings) -> Controller:
        """All parts of the controller, none of them started.

        Raises:
            PlatformError: the environment lacks something, or holds what cannot work.
        """
        platform = settings.platform
        http = httpx.AsyncClient(timeout=settings.http_timeout, trust_env=False)
        ledger = Ledger(engine_of(platform.need("database_url")))
        airflow = Airflow(platform.need("airflow_url"), platform.need("airflow_credentials_file"), http)
        registry_url = platform.need("mlflow_url")
        registry = Registry(registry_url, http)
        specs = Specs(Path(platform.need("pipelines_dir")))
        facts = FactFinder(platform.need("store"), registry)
        data_clock = DataClock(platform.need("store"))
        metrics = ControllerMetrics()
        open_events, undelivered = asyncio.Event(), asyncio.Event()
        lease = timedelta(seconds=4 * settings.http_timeout)  # a delivery is at most a call, a login and a second call
        loop = LoopMetrics(specs, airflow, utc_now)
        champions = Champions(specs, registry, utc_now)
        for collector in (Thresholds(specs), data_clock, loop, champions):
            metrics.registry.register(collector)
        return cls(
            settings=settings,
            token=TokenFile(platform.need("token_file")),
            mlflow_secret=TokenFile(settings.mlflow_secret_file, SECRET_VARIABLE)
            if settings.mlflow_secret_file
            else None,
            ledger=ledger,
            specs=specs,
            metrics=metrics,
            decider=Decider(ledger, specs, facts, metrics, settings.alert_expiry, utc_now, undelivered.set),
            outbox=Outbox(
                ledger, airflow, metrics, utc_now, Rollbacks(registry_url).take_back, lease, settings.max_backoff
            ),
            outcomes=Outcomes(ledger, airflow, registry, specs, utc_now, metrics.judged),
            data_clock=data_clock,
            loop=loop,
            airflow=airflow,
            registry=registry,
            champions=champions,
            watchdog=Watchdog(ledger, utc_now, settings.watchdog_after, utc_now()),
            http=http,
            open_events=open_events,
            undelivered=undelivered,
        )

    @staticmethod
    def clock() -> datetime:
        """Now, aware."""
        return utc_now()

    async def start(self) -> None:
        """Read the pipelines, then keep going in the background; the ledger may come later."""
        await self._reload()
        settings = self.settings
        loops = [
            self._every("pipelines", settings.reload_every, self._reload),
            self._every("decisions", settings.decide_every, self.decider.decide_all),
            self._every("new events", settings.decide_every, self.decider.decide_new, self.open_events),
            self._every("outbox", settings.deliver_every, self.outbox.deliver_due, self.undelivered),
            self._every("outcomes", settings.watch_every, self.outcomes.look),
            self._every("champions", settings.champions_every, self.champions.refresh),
            self._every("schedules", settings.reload_every, self._keep_schedules),
            self._every("watchdog", settings.look_every, self.watchdog.look),
        ]
        self._tasks = [asyncio.create_task(self._prepare_ledger()), *(asyncio.create_task(loop) for loop in loops)]

    async def stop(self) -> None:
        """End the loops. What was being delivered is delivered again by the next start, which Airflow sees through."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.http.aclose()
        await self.ledger.close()

    async def _prepare_ledger(self) -> None:
        while not self.migrated:
            try:
                await self.ledger.migrate()
                await self.ledger.retry_now(utc_now())
                self.migrated = True
            except LEDGER_ERRORS as error:
                log.warning("the ledger does not answer, trying again: %s", brief(error))
                await asyncio.sleep(1)
        log.info("the ledger is ready")
        self.open_events.set()
        self.undelivered.set()

    async def _reload(self) -> None:
        if await asyncio.to_thread(self.specs.refresh):
            self.metrics.know(self.specs.names())
        await asyncio.to_thread(self.data_clock.refresh, self.specs.all())

    async def _keep_schedules(self) -> None:
        """Take note of schedules that are new, and write the ticks that have passed."""
        specs = {pipeline.name: pipeline.spec.retraining.schedule for pipeline in self.specs.all()}
        schedules = frozenset(schedule_mark(name, schedule) for name, schedule in specs.items() if schedule)
        if schedules != self._schedules:
            await self.ledger.keep_schedules(schedules, utc_now())
            self._schedules = schedules
        if not schedules:
            return
        ticks = list(due(self.specs.all(), await self.ledger.marks(), utc_now()))
        new = [tick for tick in ticks if tick.dedupe_key not in self._ticks]
        if new and any(event.new for event in await self.ledger.write(new, utc_now())):
            self.open_events.set()
        self._ticks = frozenset(tick.dedupe_key for tick in ticks)

    async def read_figures(self) -> None:
        """Bring the metrics of the loop up to date, unless they just were.

        Raises:
            what `LEDGER_ERRORS` names: the last figures stay.
        """
        now = time.monotonic()
        if self.loop.figures is not None and now < self._figures_read + self.settings.figures_every:
            return
        budgets = (pipeline.spec.retraining.budget.per for pipeline in self.specs.all())
        self.loop.figures = await self.ledger.figures(utc_now() - max(budgets, default=timedelta(0)))
        self._figures_read = now

    async def _every(
        self, name: str, seconds: float, work: Callable[[], Awaitable[None]], wake: asyncio.Event | None = None
    ) -> None:
        """Do `work` again and again; a failure is logged once, and the next round tries again."""
        wake = wake or asyncio.Event()
        failing = ""
        while True:
            began = time.monotonic()
            try:
                if self.migrated or name in {"pipelines", "champions"}:
                    await work()
                failing = ""
            except (PerennialError, *LEDGER_ERRORS) as error:
                if brief(error) != failing:
                    log.warning("%s: %s", name, brief(error))
                failing = brief(error)
            except Exception:  # a loop that ends would be noticed by nobody
                log.exception("%s: unexpected", name)
            # In a flood of alerts the work must leave time for the answers: what comes meanwhile is done together.
            await asyncio.sleep(min(_REST * (time.monotonic() - began), seconds))
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):  # not wait_for: on Python 3.11 it can swallow a cancellation
                    await wake.wait()
            wake.clear()


def brief(error: BaseException) -> str:
    """An error in one line. Database errors repeat statements and parameters over many."""
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0] or type(error).__name__
