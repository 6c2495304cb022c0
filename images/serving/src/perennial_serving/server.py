"""Putting the parts together, starting them, and ending them in the order that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from perennial_features.engine import load_xgboost
from perennial_serving import tables
from perennial_serving.app import App, starlette
from perennial_serving.cache import Cache
from perennial_serving.counting import ServerCounters
from perennial_serving.engine import Engine
from perennial_serving.fleet import Fleet
from perennial_serving.follower import Follower
from perennial_serving.metrics import Exposition, ServingCollector
from perennial_serving.prediction_log import PredictionLog
from perennial_serving.registry import Registry
from perennial_serving.settings import Settings
from perennial_spec.errors import PlatformError
from perennial_spec.platform import Platform

if TYPE_CHECKING:
    from perennial_serving.grpc_server import GrpcServer

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """The running parts of one server."""

    settings: Settings
    fleet: Fleet
    follower: Follower
    engine: Engine
    prediction_log: PredictionLog | None
    app: App

    def start(self) -> None:
        load_xgboost()  # here once, and not in two loading threads at the same time
        if self.prediction_log is not None:
            tables.warm()
            self.prediction_log.start()
        self.follower.start()

    def stop(self) -> None:
        """After the last answer. The log comes before the registry: a registry that hangs must not cost rows."""
        self.engine.close()
        if self.prediction_log is not None:
            self.prediction_log.stop(self.settings.shutdown_seconds)
        self.follower.stop()


def assemble(platform: Platform, settings: Settings) -> Parts:
    """The parts, not started.

    Raises:
        PlatformError: MLFLOW_TRACKING_URI is not set, or the cache folder cannot be written.
    """
    url = platform.need("mlflow_url")
    if not url.startswith(("http://", "https://")):
        raise PlatformError(
            f"MLFLOW_TRACKING_URI is {url.split(':', 1)[0]}:...",
            expected="the http:// or https:// address of an MLflow server",
            next="start one with: perennial up",
        )
    try:
        cache = Cache(Path(settings.cache_dir), settings.cache_bundles)
    except OSError as error:
        raise PlatformError(
            f"the cache folder cannot be made: {error.strerror}",
            where=settings.cache_dir,
            expected="a folder that this process may write",
            next="set PERENNIAL_SERVING_CACHE_DIR",
        ) from None
    fleet, counters, prediction_log = Fleet(), ServerCounters(), None
    if platform.store is None:
        log.warning("PERENNIAL_STORE is not set: predictions and labels are not kept, and quality cannot be measured")
    else:
        prediction_log = PredictionLog(tables.Tables(platform, settings.log_compact_commits).append, settings)
    engine = Engine(settings, prediction_log)
    exposition = Exposition(ServingCollector(fleet, counters, prediction_log))
    follower = Follower(fleet, Registry(url, settings.registry_timeout), cache, settings)
    app = App(fleet, engine, settings, counters, exposition, prediction_log)
    return Parts(settings, fleet, follower, engine, prediction_log, app)


class Server(uvicorn.Server):
    """uvicorn, that on SIGTERM first reports not ready for a while, so that load balancers stop sending before it stops listening."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        wait = self._parts.settings.drain_seconds
        if self._parts.fleet.draining or not wait or sig == signal.SIGINT:
            self._parts.fleet.draining = True
            super().handle_exit(sig, frame)
            return
        self._parts.fleet.draining = True
        timer = threading.Timer(wait, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def server_of(parts: Parts) -> Server:
    """The HTTP server around `parts`, not started."""
    settings = parts.settings

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await asyncio.to_thread(parts.start)
        grpc = await _start_grpc(parts)
        yield
        if grpc is not None:
            await grpc.stop(settings.shutdown_seconds)
        await asyncio.to_thread(parts.stop)

    config = uvicorn.Config(
        starlette(parts.app, lifespan),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        backlog=1024,
        limit_concurrency=settings.max_concurrency,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.shutdown_seconds) or None,
    )
    return Server(config, parts)


async def _start_grpc(parts: Parts) -> GrpcServer | None:
    """The gRPC port, when one is configured; on this event loop, as the engine wants it."""
    if not parts.settings.grpc_port:
        return None
    from perennial_serving.grpc_server import GrpcServer

    server = GrpcServer(parts.app, parts.settings.grpc_port)
    await server.start()
    return server


def listen(settings: Settings) -> socket.socket:
    """The socket to answer on.

    Raises:
        PlatformError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        raise PlatformError(
            f"the model server cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            expected="a free port",
            next="end what uses it, or set PERENNIAL_PORT",
        ) from None
    return found
