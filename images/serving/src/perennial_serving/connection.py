"""The HTTP connection: uvicorn's, with a shorter way for plain predictions, and bounds on what a client may take of it.

    bytes --scan--> one whole, plain POST to a prediction path --> Turns: answered at the end of this turn of the event loop
              `---> anything else ------------------------------> httptools, ASGI, Starlette

The shorter way is taken only between messages, and for one request at a time: what arrives while one is being answered waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from perennial_native._rows import scan
from perennial_serving.refusals import RETRY_AFTER_SECONDS
from perennial_serving.settings import Settings

_STALLED_SECONDS = 30.0
"""A client that does not read its answers for this long is let go."""
_SWEEP_SECONDS = 0.5


Plain = tuple[bytes, int, bytes | None, bytes | None]
"""What `scan` finds: path, where the body begins, Authorization, X-API-Key."""


class Ready(Protocol):
    """What takes plain requests; see `turns.Turns`."""

    def take(self, connection: Connection, data: bytes, plain: Plain) -> bool:
        """Whether the request in `data` is answered, by `connection.answer` or `connection.general`, within this turn of the loop."""


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        ready: Ready,
        settings: Settings,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _QUIET
        self.access_log = False
        self._ready, self._settings = ready, settings
        self._take, self._now = ready.take, self.loop.time
        self._since = 0.0
        """When the state of the connection last changed, by the loop's clock."""
        self._answering = False
        """A plain request of this connection waits for the end of the turn."""
        self._held = b""
        """What came in meanwhile."""
        self._within = self._in_head = False
        """In the middle of a message; in the middle of its head."""
        self._head_bytes = 0
        self._ending = False

    # -- what comes in --

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self._now()
        if len(self.connections) > self._settings.max_connections:
            self._refuse(503, "the server has no room for another connection")

    def data_received(self, data: bytes) -> None:
        if self._answering:
            self._hold(data)
            return
        if not self._within and (self.cycle is None or self.cycle.response_complete):
            plain = scan(data)
            if plain is not None and self._take(self, data, plain):
                self._answering = True
                if self.timeout_keep_alive_task is not None:
                    self._unset_keepalive_if_required()
                return
        self.general(data)

    def general(self, data: bytes) -> None:
        """Give `data` to the HTTP parser, and what it makes of it to the application."""
        self._answering = False
        if self.parser is None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no other protocol is spoken here: RFC 9110 lets a server ignore the wish
        except httptools.HttpParserError:
            self._refuse(400, "this is not HTTP/1.1")
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse(431, f"the headers are longer than {self._settings.max_header_bytes:,} bytes")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client has sent all that it will, and may still read: a running answer is sent before the end."""
        self._ending = self._answering or bool(self._held) or self._busy
        return self._ending or None

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        super().connection_lost(exc)

    @property
    def _busy(self) -> bool:
        """A whole request is being answered by the application."""
        return self.cycle is not None and not self.cycle.response_complete and not self._within

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._settings.max_header_bytes:
            self.flow.pause_reading()

    def _next(self) -> None:
        """After an answer: what came in meanwhile, or the end."""
        if self._held and not self._answering:
            data, self._held = self._held, b""
            self.flow.resume_reading()
            self.data_received(data)
        if self._ending and not self._answering and not self._busy and not self.transport.is_closing():
            self.transport.close()

    # -- what goes out --

    def answer(self, response: bytes) -> None:
        """Write the whole response to the plain request that `Ready.take` took."""
        self._answering = False
        if self.transport.is_closing():
            return
        self.transport.write(response)
        self._since = self._now()
        if self._held or self._ending:
            self._next()

    def _refuse(self, status: int, message: str) -> None:
        """An answer to what is not even a request, in both protocols' forms, and the end."""
        if not self._busy and not (self.cycle is not None and self._within and self.cycle.response_started):
            code = "TEMPORARILY_UNAVAILABLE" if status == 503 else "BAD_REQUEST"
            body = orjson.dumps({"error": message, "error_code": code, "message": message})
            retry = b"retry-after: %d\r\n" % RETRY_AFTER_SECONDS if status == 503 else b""
            head = b"%bcontent-type: application/json\r\n%bconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % (STATUS_LINE[status], retry, len(body)) + body)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def shutdown(self) -> None:
        if self._answering:
            self._ending = True
        else:
            super().shutdown()

    # -- bounds in time --

    def check(self, now: float) -> None:
        """Let go of a client that takes too long."""
        waited = now - self._since
        if self.flow is not None and self.flow.write_paused:
            if waited > _STALLED_SECONDS:
                self.transport.abort()
        elif self._within:
            if waited > self._settings.request_timeout_seconds:
                self._refuse(408, f"the request did not arrive whole in {self._settings.request_timeout_seconds:g} s")
        elif not self._busy and not self._answering and waited > self.timeout_keep_alive:
            self.timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._since = self._now()
        self.flow.pause_reading()  # who does not read answers asks no more questions

    def resume_writing(self) -> None:
        super().resume_writing()
        self._since = self._now()
        self.flow.resume_reading()

    # -- the parser's callbacks --

    def on_message_begin(self) -> None:
        self._within = self._in_head = True
        self._head_bytes = 0
        self._since = self._now()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._within = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self._now()
        self._next()


async def sweep(connections: Iterable[Any], also: Callable[[], None] = lambda: None) -> None:
    """Hold all connections to their bounds in time, and call `also`, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = loop.time()
        for connection in list(connections):
            connection.check(now)
        also()


_QUIET = logging.Logger("perennial_serving.connection", logging.CRITICAL)
"""What clients do wrong is answered and counted, and fills no log."""
