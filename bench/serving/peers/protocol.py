"""An asyncio protocol on uvloop with httptools and orjson, no framework: `protocol.py PORT PREDICTOR MODEL [batch]`.

With `batch`, all requests that one turn of the event loop has read are predicted together, and none waits for more.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import httptools
import orjson
import uvloop
from predictors import Predict, predictor  # type: ignore[import-not-found]


class Batcher:
    """Predicts what was asked: at once, or once per turn of the loop."""

    def __init__(self, predict: Predict, batch: bool) -> None:
        self._predict = predict
        self._batch = batch
        self._waiting: list[tuple[Connection, Any]] = []

    def ask(self, connection: Connection, rows: Any) -> None:
        if not self._batch:
            connection.answer(self._predict(rows))
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((connection, rows))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        scores = self._predict([row for _, rows in waiting for row in rows])
        start = 0
        for connection, rows in waiting:
            end = start + len(rows)
            connection.answer(scores[start:end])
            start = end


class Connection(asyncio.Protocol):
    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, and does not say so

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        self._batcher.ask(self, orjson.loads(body)["dataframe_split"]["data"])

    def answer(self, scores: list[float]) -> None:
        body = orjson.dumps({"predictions": scores})
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )


async def serve(port: int, name: str, model: Path, batch: bool) -> None:
    batcher = Batcher(predictor(name, model), batch)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(batcher), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), "batch" in sys.argv[4:]))
