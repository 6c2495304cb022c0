"""The ports of the embedded platform, all on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice

from perennial_spec.errors import PlatformError

HOST = "127.0.0.1"
QUIET = range(15000, 32768)
FREE = 0
"""As `--port-base`: take any free ports."""


@dataclass(frozen=True)
class Ports:
    """One port per part that listens; the defaults are the usual ones of each program where that is possible."""

    airflow: int = 8080
    mlflow: int = 5000
    server: int = 8800
    controller: int = 8801
    quality: int = 8802
    prometheus: int = 9090
    alertmanager: int = 9093
    postgres: int = 5442

    def url(self, part: str) -> str:
        return f"http://{HOST}:{getattr(self, part)}"


def choose_ports(base: int | None) -> Ports:
    """Default ports for None, free ones for 0, and `base`, `base + 1`, ... otherwise.

    Raises:
        PlatformError: the base leaves the range of ports.
    """
    names = [field.name for field in fields(Ports)]
    if base is None:
        return Ports()
    if base == FREE:
        return Ports(**dict(zip(names, free_ports(len(names)), strict=True)))
    if not 1024 <= base <= 65535 - len(names):
        raise PlatformError(
            f"{base} is not a usable port base",
            where="--port-base",
            expected=f"0 for free ports, or a number between 1024 and {65535 - len(names)}",
        )
    return Ports(**{name: base + offset for offset, name in enumerate(names)})


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below the range from which the system serves outgoing connections.

    The system's own choice (bind to port 0) comes from that range, where any client may take it again before the part binds it.
    """
    candidates = random.SystemRandom().sample(QUIET, len(QUIET))
    found = list(islice(filter(_is_free, candidates), count))
    if len(found) < count:
        raise PlatformError(
            f"there are no {count} free ports", where=HOST, expected=f"free ports in {QUIET.start}-{QUIET.stop}"
        )
    return found


def check_ports(wanted: Mapping[str, int]) -> None:
    """Make sure that no port is taken.

    Raises:
        PlatformError: names each part whose port is taken, and who holds it as far as that can be known.
    """
    taken = {part: port for part, port in wanted.items() if not _is_free(port)}
    if not taken:
        return
    lines = [f"port {port} of {part} is taken by {holder(port)}" for part, port in taken.items()]
    raise PlatformError(
        "; ".join(lines),
        where=HOST,
        expected="free ports",
        next="end that process, or choose other ports with: perennial up --port-base 18000",
    )


def ports_of(ports: Ports) -> dict[str, int]:
    """Part to port."""
    return asdict(ports)


def holder(port: int) -> str:
    """Who listens on a port, in words."""
    import psutil

    try:
        found = [
            entry.pid
            for entry in psutil.net_connections(kind="tcp")
            if entry.laddr and entry.laddr.port == port and entry.status == psutil.CONN_LISTEN
        ]
    except psutil.AccessDenied:
        found = []
    for pid in found:
        if pid is None:
            continue
        try:
            return f"{psutil.Process(pid).name()} (pid {pid})"
        except psutil.NoSuchProcess:
            continue
    return "another process (which one is not visible to this user)"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection that is still closing does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
