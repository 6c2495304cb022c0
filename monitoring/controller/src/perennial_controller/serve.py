"""An application on a socket until SIGTERM or SIGINT, with logs on stderr."""

from __future__ import annotations

import logging
import signal
import socket
import sys

import uvicorn
from starlette.applications import Starlette

from perennial_spec.errors import PlatformError

log = logging.getLogger(__name__)
CONNECTIONS = 256
"""Beyond these the answer is 503 at once: Alertmanager repeats what it got that for, and memory stays bounded."""


def serve(app: Starlette, host: str, port: int) -> None:
    """Listen and answer until told to end; requests that are under way are finished.

    Raises:
        PlatformError: the port is taken, or the address is not this machine's.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = _listen(host, port)
    log.info("listening on http://%s:%d", *listener.getsockname()[:2])
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
        limit_concurrency=CONNECTIONS,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, _end
        )  # uvicorn raises what it was sent again when all is finished: end with 0, not by the signal
    uvicorn.Server(config).run(sockets=[listener])


def _end(*_: object) -> None:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PlatformError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            where="PERENNIAL_HOST and PERENNIAL_PORT",
            expected="an address of this machine and a free port",
            next=f"end what listens there (ss -ltnp 'sport = :{port}'), or set PERENNIAL_PORT",
        ) from None
    return listener
