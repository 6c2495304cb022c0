"""uvicorn's server, that ends without cutting off what is on its way."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from perennial_serving.acceptor import Acceptor
from perennial_serving.connection import sweep
from perennial_serving.fleet import Fleet
from perennial_serving.place import Place
from perennial_serving.settings import Settings
from perennial_spec.errors import PlatformError

_LINGER_SECONDS = 0.5
"""At the end a connection without a request is kept this long: what is on its way meanwhile is answered, and not cut off."""
_LAST = (b"connection", b"close")


class Server(uvicorn.Server):
    """uvicorn, that on SIGTERM first reports not ready for a while, so that load balancers stop sending before it stops listening."""

    def __init__(
        self,
        config: uvicorn.Config,
        fleet: Fleet,
        settings: Settings,
        start: Callable[[], Awaitable[None]],
        place: Place | None,
        *,
        note: Callable[[int], None],
    ) -> None:
        super().__init__(config)
        self._start = start
        """Starts what answers."""
        self._tell = note
        """Is told, twice a second, how many connections there are."""
        self.failure: PlatformError | None = None
        """Why it has not started."""
        self._fleet, self._settings, self._place = fleet, settings, place
        self._sweeping: asyncio.Task[None] | None = None
        self._coming: set[asyncio.Task[object]] = set()
        """Clients that we have taken ourselves, until they are among the connections."""
        self._acceptors: list[Acceptor] = []
        """Where other processes listen too, and uvicorn's way would leave to chance who gets how many."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        place = self._place
        try:
            await self._start()
        except PlatformError as error:  # not in the lifespan: uvicorn would print a traceback
            self.failure, self.should_exit = error, True
            return
        if place is None:
            await super().startup(sockets)
            self._sweeping = asyncio.create_task(sweep(self.server_state.connections, self._note))
            return
        await super().startup([])
        self._acceptors = [Acceptor(s, self._take, self._count, place.board, place.slot) for s in sockets or ()]
        self._sweeping = asyncio.create_task(sweep(self.server_state.connections, self._note))
        place.answers(self._fleet)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._leave()
        for acceptor in self._acceptors:
            acceptor.stop()
        for sock in sockets or ():
            self._take_the_rest(sock)
            sock.close()
        for server in self.servers:
            server.close()
        end = time.monotonic() + _LINGER_SECONDS
        while self._count() and time.monotonic() < end and not self.force_exit:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)
        self._tell(0)

    def _count(self) -> int:
        return len(self.server_state.connections) + len(self._coming)

    def _note(self) -> None:
        self._tell(self._count())
        for acceptor in self._acceptors:
            acceptor.note()

    def _leave(self) -> None:
        """From now on every answer says that it is the connection's last: the client comes back by another, to another server."""
        self._fleet.draining = True
        self.config.encoded_headers = self.server_state.default_headers = [_LAST]

    def _take_the_rest(self, sock: socket.socket) -> None:
        """Clients whose connection the system has accepted, and we have not: closing would refuse them what they have sent already."""
        with suppress(OSError):  # there are no more
            while True:
                self._take(sock.accept()[0])

    def _take(self, client: socket.socket) -> None:
        """Make a connection of a client that was accepted."""
        loop = asyncio.get_running_loop()
        kind: Any = self.config.http_protocol_class
        made = partial(kind, self.config, self.server_state, self.lifespan.state, loop)
        coming = loop.create_task(loop.connect_accepted_socket(made, client, ssl=self.config.ssl))
        self._coming.add(coming)
        coming.add_done_callback(self._came)

    def _came(self, coming: asyncio.Task[Any]) -> None:
        self._coming.discard(coming)
        if not coming.cancelled():
            coming.exception()  # a client that does not get through the handshake is not worth a line in the log

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        wait = self._settings.drain_seconds
        if self._fleet.draining or not wait or sig == signal.SIGINT:
            self._leave()
            super().handle_exit(sig, frame)
            return
        self._leave()
        timer = threading.Timer(wait, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def run(server: Server, sock: socket.socket) -> int:
    """Serve until a signal. 0 when it ended in order, 1 when it could not start.

    Raises:
        PlatformError: why it could not.
    """
    import uvloop

    def end(*_: object) -> None:
        if not server.should_exit:  # uvicorn raises the signal again after it has obeyed it
            sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[sock]))
    if server.failure is not None:
        raise server.failure
    return 0 if server.started else 1
