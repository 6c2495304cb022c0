"""What an operator may change about the model server, read from the environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from perennial_spec.errors import PlatformError


@dataclass(frozen=True)
class Settings:
    """Each field is read from `PERENNIAL_SERVING_<FIELD>`; `host` and `port` from `PERENNIAL_HOST` and `PERENNIAL_PORT`."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback unless told otherwise: the server has no authentication of its own."""
    port: int = 8800
    """0 takes a free port; the log line `listening` names it."""
    grpc_port: int = 0
    """Port for the Open Inference Protocol over gRPC, from `PERENNIAL_GRPC_PORT`; 0: it is not spoken."""
    cache_dir: str = ".perennial/serving"
    """Folder that keeps bundles and the last good routes, so that a restart needs no registry."""
    pipelines: tuple[str, ...] = ()
    """Serve only these (comma separated); empty: every registered model that has a route."""

    poll_seconds: float = 1.0
    """Time between two looks at the registry."""
    poll_jitter: float = 0.2
    """Share of `poll_seconds` that is random, so that replicas do not ask in step."""
    registry_timeout: float = 5.0
    """Seconds for one call to the registry, after which the last route holds."""
    retry_seconds: float = 2.0
    """First wait after a version failed to load; doubles up to a minute."""
    grace_seconds: float = 60.0
    """A version that left the route stays loaded this long, so that going back is instant."""
    cache_bundles: int = 6
    """Bundles kept on disk per pipeline beside those in use."""
    max_bundle_bytes: int = 2**30
    """A larger bundle is refused."""

    max_body_bytes: int = 8 * 2**20
    """Larger requests are answered with 413 before they are read to the end."""
    max_rows: int = 10_000
    """Rows per request; more are answered with 413."""
    max_connections: int = 1024
    """Connections at once; more are answered with 503."""
    max_inflight_rows: int = 200_000
    """Rows that may be predicted at once; more are answered with 503."""
    max_inflight_bytes: int = 64 * 2**20
    """Bodies that may be received at once, all together; more are answered with 503."""
    max_header_bytes: int = 16 * 2**10
    """Longer heads of requests are answered with 431."""
    request_timeout_seconds: float = 15.0
    """A request must have arrived whole this long after its first byte; else it is answered with 408."""
    load_timeout_seconds: float = 120.0
    """A version that takes longer to load is refused."""
    inline_rows: int = 128
    """Requests up to this many rows are predicted on the event loop; larger ones in a thread, so that they hold up nobody."""
    predict_threads: int = 2
    """Threads for large requests."""

    log_flush_seconds: float = 1.0
    """Predictions and labels are appended to their Delta tables at most this often."""
    log_flush_rows: int = 20_000
    """Or as soon as this many rows wait."""
    log_queue_rows: int = 100_000
    """Rows that may wait; more are dropped and counted, never waited for."""
    log_compact_commits: int = 300
    """Small files are merged after this many appends; 0 never."""

    drain_seconds: float = 0.0
    """After SIGTERM, keep answering (and report not ready) this long, until load balancers have noticed."""
    shutdown_seconds: float = 8.0
    """Then wait at most this long for running requests, and as long again for the log to be written."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings of this process.

        Raises:
            PlatformError: a variable is not what its field needs; names it.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        if home := environment.get("PERENNIAL_HOME"):
            values["cache_dir"] = f"{home}/serving"
        for field in fields(cls):
            name = _variable(field.name)
            if text := environment.get(name):
                values[field.name] = _parse(name, text, type(field.default))
        return cls(**values)


def _variable(field: str) -> str:
    return (
        f"PERENNIAL_{field.upper()}" if field in {"host", "port", "grpc_port"} else f"PERENNIAL_SERVING_{field.upper()}"
    )


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or (not isinstance(value, str) and not 0 <= value < 2**53):
        what = "a whole number" if kind is int else "a number of at least 0"
        raise PlatformError(f"{name} is {text!r}", expected=what, next="correct or unset the variable") from None
    return value
