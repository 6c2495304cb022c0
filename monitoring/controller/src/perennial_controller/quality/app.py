"""The exporter over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from perennial_controller.quality.exporter import Exporter

log = logging.getLogger(__name__)
_REST = 9
"""A refresh is followed by at least so many times its own length: with a million rows in the window, a tenth of a core."""
_REST_AT_MOST = 30.0
"""Seconds; a start, which reads the whole window, takes long once."""


def make_app(exporter: Exporter, every: float) -> Starlette:
    """The application; its lifespan keeps the exporter refreshed `every` so many seconds, or less often where that takes long."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(exporter)
    first = asyncio.Event()

    async def keep_fresh() -> None:
        while True:
            began = time.monotonic()
            try:
                await asyncio.to_thread(exporter.refresh)
                first.set()
            except Exception:  # a loop that ends would be noticed by nobody
                log.exception("the refresh failed")
            await asyncio.sleep(max(every, min(_REST * (time.monotonic() - began), _REST_AT_MOST)))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(keep_fresh())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ok\n") if first.is_set() else PlainTextResponse("the logs are being read\n", 503)

    routes = [Route("/metrics", metrics), Route("/healthz", healthy), Route("/readyz", ready)]
    return Starlette(lifespan=lifespan, routes=routes)
