"""Putting the parts together, starting them, and ending them in the order that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from perennial_serving import tables
from perennial_serving.app import App, starlette
from perennial_serving.attributions import Attributions
from perennial_serving.auth import Keys, tls_context
from perennial_serving.cache import Cache
from perennial_serving.connection import Connection
from perennial_serving.counting import REQUESTS, ROWS, ServerCounters
from perennial_serving.edge import Budget
from perennial_serving.engine import Engine
from perennial_serving.explain import Explainer
from perennial_serving.explanations import Explanations
from perennial_serving.fleet import Fleet
from perennial_serving.follower import Follower
from perennial_serving.health import HealthQueries
from perennial_serving.http_server import Server
from perennial_serving.metrics import Exposition, Limits, OwnTally
from perennial_serving.place import Place
from perennial_serving.prediction_log import PredictionLog
from perennial_serving.predictions import Predictions
from perennial_serving.registry import Registry
from perennial_serving.settings import Settings
from perennial_serving.shared_listing import LOOK_SECONDS, SharedRegistry
from perennial_serving.turns import Turns
from perennial_spec.errors import PlatformError
from perennial_spec.platform import Platform

if TYPE_CHECKING:
    from perennial_serving.grpc_server import GrpcServer

log = logging.getLogger(__name__)
_SWITCH_SECONDS = 0.0005
"""A thread that computes gives way to the event loop after this long; Python's 5 ms would be seen in the answers' tail."""


@dataclass
class Parts:
    """The running parts of one server."""

    settings: Settings
    fleet: Fleet
    follower: Follower
    engine: Engine
    prediction_log: PredictionLog | None
    app: App
    turns: Turns
    attributions: Attributions
    place: Place | None = None
    """Among several workers; None: this process answers alone."""
    grpc: GrpcServer | None = None
    health: HealthQueries = field(init=False)

    def __post_init__(self) -> None:
        self.health = HealthQueries(self.fleet, self.settings.health_query_seconds)

    async def start(self) -> None:
        """On the event loop; until it may answer. What has started is stopped again when another part cannot.

        Raises:
            PlatformError: the port for gRPC is taken.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        if self.prediction_log is not None:
            self.prediction_log.start()
        self.follower.start()
        self.health.start()
        if self.place is not None:
            self.place.listen(self.fleet, self.settings.end_seconds)
            await self.place.admittance(self.fleet)
        if self.settings.grpc_port:
            from perennial_serving.grpc_server import GrpcServer

            self.grpc = GrpcServer(
                self.app,
                self.settings.grpc_port,
                credentials=_credentials(self.settings),
                authorize=self._may_call,
                shared=self.place is not None,
            )
            await self.grpc.start()
        self.attributions.start()
        gc.collect()
        gc.freeze()  # what is here stays; the collector need not look at it again

    def note(self, connections: int) -> None:
        """Take note of what is in progress; a scrape may ask another worker for it."""
        in_flight = self.app.counters.in_flight
        in_flight[REQUESTS], in_flight[ROWS] = connections, self.engine.rows_in_progress

    def _may_call(self, metadata: Mapping[str, str | bytes]) -> bool:
        """Whether a gRPC call has a key, where keys are asked for."""
        if self.app.keys is None:
            return True
        bearer, key = metadata.get("authorization"), metadata.get("x-api-key")
        return self.app.keys.allow(_bytes(bearer), _bytes(key))

    async def stop(self) -> None:
        """After the last answer. The log comes before the registry: a registry that hangs must not cost rows."""
        await self.health.stop()
        if self.grpc is not None:
            await self.grpc.stop(self.settings.shutdown_seconds)
        await self.attributions.stop()
        await asyncio.to_thread(self.engine.close)
        await self.app.explanations.explainer.close()
        if self.prediction_log is not None:
            await asyncio.to_thread(self.prediction_log.stop, self.settings.shutdown_seconds)
        await asyncio.to_thread(self.follower.stop)
        await self.follower.processes.close()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _credentials(settings: Settings) -> Any:
    """TLS for gRPC, from the same files as for HTTP; None: in the clear."""
    if not settings.tls_cert:
        return None
    import grpc

    pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_cert).read_bytes())
    authority = Path(settings.tls_client_ca).read_bytes() if settings.tls_client_ca else None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)


def assemble(platform: Platform, settings: Settings, place: Place | None = None) -> Parts:
    """The parts, not started.

    Args:
        place: of this process among several workers.

    Raises:
        PlatformError: MLFLOW_TRACKING_URI is not set, the cache folder cannot be written, or the keys cannot be read.
    """
    url = platform.need("mlflow_url")
    if not url.startswith(("http://", "https://")):
        raise PlatformError(
            f"MLFLOW_TRACKING_URI is {url.split(':', 1)[0]}:...",
            expected="the http:// or https:// address of an MLflow server",
            next="start one with: perennial up",
        )
    fleet, prediction_log = Fleet(), None
    counters = ServerCounters() if place is None else place.files.counters
    tally = OwnTally(fleet, counters) if place is None else place.files
    if platform.store is None:
        log.warning("PERENNIAL_STORE is not set: predictions and labels are not kept, and quality cannot be measured")
    else:
        prediction_log = PredictionLog(tables.Tables(platform, settings.log_compact_commits).append, settings, counters)
    engine, budget = Engine(settings, counters, prediction_log), Budget(settings.max_inflight_bytes)
    app = App(
        fleet,
        Predictions(fleet, engine, settings, counters, budget),
        Explanations(fleet, settings, counters, budget, Explainer(settings)),
        counters,
        Exposition(
            fleet,
            tally,
            prediction_log is not None,
            Limits(settings.max_connections, settings.max_inflight_rows),
        ),
        prediction_log,
        Keys.load(Path(settings.api_keys_file)) if settings.api_keys_file else None,
    )
    return Parts(
        settings,
        fleet,
        _follower(fleet, url, settings, counters, place),
        engine,
        prediction_log,
        app,
        Turns(fleet, engine, settings, app.keys),
        Attributions(fleet, settings.attribution_seconds),
        place,
    )


def _follower(fleet: Fleet, url: str, settings: Settings, counters: ServerCounters, place: Place | None) -> Follower:
    cache = _cache(settings)
    if place is None:
        registry = Registry(url, settings.registry_timeout, settings.pipelines, counters.polls)
        return Follower(fleet, registry, cache, settings)
    # The registry itself is asked as the settings say.
    often = replace(settings, poll_seconds=LOOK_SECONDS, poll_max_seconds=LOOK_SECONDS, poll_jitter=0.0)
    shared = SharedRegistry(url, settings, place.folder, counters.polls)
    return Follower(fleet, shared, cache, often, place.files.counting)


def _cache(settings: Settings) -> Cache:
    try:
        return Cache(Path(settings.cache_dir), settings.cache_bundles)
    except OSError as error:
        raise PlatformError(
            f"the cache folder cannot be made: {error.strerror}",
            where=settings.cache_dir,
            expected="a folder that this process may write",
            next="set PERENNIAL_SERVING_CACHE_DIR",
        ) from None


def server_of(parts: Parts) -> Server:
    """The HTTP server around `parts`, not started.

    Raises:
        PlatformError: the certificate or key for TLS cannot be used.
    """
    settings = parts.settings

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await parts.stop()

    config = uvicorn.Config(
        starlette(parts.app, lifespan),
        loop="uvloop",
        http=partial(Connection, ready=parts.turns, settings=settings),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        backlog=1024,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.shutdown_seconds) or None,
    )
    config.load()
    config.ssl = tls_context(settings)
    return Server(config, parts.fleet, settings, parts.start, parts.place, note=parts.note)
