"""What somebody would write in an afternoon instead: each alert is an INSERT that does nothing when the alert is known. Decides nothing.

`python -m bench.alerts.plain PORT DATABASE_URL`
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

_TABLE = "CREATE TABLE IF NOT EXISTS plain (key text PRIMARY KEY, body jsonb NOT NULL)"
_INSERT = "INSERT INTO plain VALUES ($1, $2) ON CONFLICT DO NOTHING"


def make_app(url: str) -> Starlette:
    pools: list[asyncpg.Pool] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        pools.append(await asyncpg.create_pool(url, min_size=4, max_size=10))
        await pools[0].execute(_TABLE)
        yield
        await pools[0].close()

    async def receive(request: Request) -> JSONResponse:
        for alert in (await request.json())["alerts"]:
            key = f"{alert['fingerprint']}:{alert['startsAt']}"
            await pools[0].execute(_INSERT, key, json.dumps(alert))
        return JSONResponse({})

    async def ready(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    routes = [Route("/api/v1/alerts", receive, methods=["POST"]), Route("/readyz", ready)]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
