"""Where the model server listens and speaks to its operator. Imports next to nothing: a supervisor does so for as long as it lives."""

from __future__ import annotations

import logging
import socket
import sys

from perennial_serving.settings import Settings
from perennial_spec.errors import PlatformError


def log_to_stderr(who: str = "") -> None:
    """Log lines for the operator; `who` tells processes apart."""
    form = f"%(asctime)s %(levelname)s {who + ' ' if who else ''}%(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def listen(settings: Settings) -> socket.socket:
    """The socket to answer on.

    Raises:
        PlatformError: the address is taken or not ours.
    """
    found = _bound(settings.host, settings.port, "PERENNIAL_PORT")
    host, port = found.getsockname()[:2]
    logging.getLogger("perennial_serving").info("listening on http://%s:%s", f"[{host}]" if ":" in host else host, port)
    return found


def reserve(settings: Settings) -> socket.socket | None:
    """A socket that keeps the gRPC port for processes that will share it; it does not listen itself. None: gRPC is not spoken.

    Raises:
        PlatformError: the address is taken or not ours.
    """
    if not settings.grpc_port:
        return None
    _bound(
        settings.host, settings.grpc_port, "PERENNIAL_GRPC_PORT"
    ).close()  # who shares is not told that another has it
    return _bound(settings.host, settings.grpc_port, "PERENNIAL_GRPC_PORT", socket.SO_REUSEPORT)


def _bound(host: str, port: int, variable: str, option: int = socket.SO_REUSEADDR) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise PlatformError(
            f"the model server cannot listen on {host}:{port}: {error.strerror}",
            expected="a free port",
            next=f"end what uses it, or set {variable}",
        ) from None
    return found
