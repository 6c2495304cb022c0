"""Raw ASGI on uvicorn: orjson and a predictor, or a constant answer. `asgi.py PORT PREDICTOR|hello MODEL`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from predictors import predictor  # type: ignore[import-not-found]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
HELLO = b'{"predictions":[0.5]}'


def application(name: str, model: Path) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    predict = None if name == "hello" else predictor(name, model)

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        answer = HELLO
        if predict is not None:
            answer = orjson.dumps({"predictions": predict(orjson.loads(body)["dataframe_split"]["data"])})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2], Path(sys.argv[3])),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        server_header=False,
        date_header=False,
        log_level="warning",
    )
