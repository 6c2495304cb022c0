"""What an operator may change about the model server, read from the environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from perennial_spec.errors import PlatformError

_SHORT = {"host", "port", "grpc_port"}
"""Fields whose variable has no `SERVING` in its name: the platform's other parts read them too."""
_MOST = 2**53
_BOUNDS: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "grpc_port": (0, 65_535),
    "workers": (1, 256),
    "poll_seconds": (0.01, 3600),
    "poll_jitter": (0, 10),
    "poll_max_seconds": (0.01, 3600),
    "registry_timeout": (0.1, 600),
    "retry_seconds": (0.01, 3600),
    "load_timeout_seconds": (1, 86_400),
    "max_body_bytes": (1024, 2**31),
    "max_header_bytes": (1024, 2**20),
    "max_rows": (1, 10_000_000),
    "max_connections": (1, 1_000_000),
    "max_inflight_rows": (1, _MOST),
    "max_inflight_bytes": (1024, _MOST),
    "request_timeout_seconds": (0.1, 3600),
    "predict_threads": (1, 256),
    "explain_timeout_seconds": (0.1, 3600),
    "max_explain_rows": (1, 1_000_000),
    "attribution_rows": (0, 100_000),
    "attribution_seconds": (0.1, 3600),
    "health_query_seconds": (0, 86_400),
    "pyfunc_workers": (1, 256),
    "pyfunc_queue": (1, 1_000_000),
    "pyfunc_batch_rows": (1, 10_000_000),
    "pyfunc_timeout_seconds": (0.1, 86_400),
    "drain_seconds": (0, 3600),
    "shutdown_seconds": (0, 3600),
}
"""Least and greatest value of a number; the others are at least 0."""


@dataclass(frozen=True)
class Settings:
    """Each field is read from `PERENNIAL_SERVING_<FIELD>`; `host`, `port` and `grpc_port` from `PERENNIAL_HOST` and so on."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback unless told otherwise: without keys and TLS, whoever reaches the port is answered."""
    port: int = 8800
    """0 takes a free port; the log line `listening` names it."""
    grpc_port: int = 0
    """Port for the Open Inference Protocol over gRPC; 0: it is not spoken."""
    workers: int = 1
    """Processes that answer on the port, each on a core of its own at best; bounds on requests and connections hold for each."""
    cache_dir: str = ".perennial/serving"
    """Folder that keeps bundles and the last good routes, so that a restart needs no registry."""
    pipelines: tuple[str, ...] = ()
    """Serve only these (comma separated); empty: every registered model that has a route."""

    poll_seconds: float = 1.5
    """Time between two looks at the registry: most of what a rollback takes. With the jitter it is shorter than the 5 seconds after which
    MLflow closes a connection."""
    poll_jitter: float = 0.2
    """At random, up to this share of `poll_seconds` is added, so that replicas do not ask in step."""
    poll_max_seconds: float = 30.0
    """While the registry is away or slow, the time between two looks grows up to this."""
    registry_timeout: float = 5.0
    """Seconds for one answer of the registry to arrive whole, after which the last route holds."""
    retry_seconds: float = 2.0
    """First wait after a version failed to load, or could not be fetched; doubles up to a minute."""
    grace_seconds: float = 60.0
    """A version that left the route stays loaded and can be asked this long."""
    standby: bool = True
    """The version that a rollback goes back to (alias `previous`) stays loaded after that, so that going back takes no time; it needs the
    memory of one more version per pipeline."""
    load_timeout_seconds: float = 120.0
    """A version whose loading and checking takes longer is refused; one whose fetching does is fetched again later."""
    cache_bundles: int = 6
    """Bundles kept on disk per pipeline beside those in use."""
    max_bundle_bytes: int = 2**30
    """A larger bundle is refused."""

    max_body_bytes: int = 8 * 2**20
    """Larger requests are answered with 413 before they are read to the end."""
    max_header_bytes: int = 16 * 2**10
    """Longer request heads are answered with 431."""
    max_rows: int = 10_000
    """Rows per request; more are answered with 413."""
    request_timeout_seconds: float = 15.0
    """Time for a request to arrive whole, after which it is answered with 408."""
    max_connections: int = 1024
    """Connections at once; more are answered with 503."""
    max_inflight_rows: int = 200_000
    """Rows that may be in progress at once; more are answered with 503 and Retry-After."""
    max_inflight_bytes: int = 64 * 2**20
    """Bodies that may be received at once, all together; more are answered with 503 and Retry-After."""
    inline_rows: int = 128
    """Requests up to this many rows are predicted on the event loop; larger ones in a thread, so that they hold up nobody."""
    predict_threads: int = 2
    """Threads for large requests."""

    api_keys_file: str = ""
    """File with one key or `name:key` a line, asked for in `Authorization: Bearer` or `X-API-Key`; read again when it changes.
    Empty: no key is needed."""
    metrics_open: bool = True
    """`/metrics` needs no key. Health endpoints never do."""
    tls_cert: str = ""
    """PEM file with the server's certificate and the chain above it. Empty: plain HTTP."""
    tls_key: str = ""
    """PEM file with the certificate's private key, not encrypted."""
    tls_client_ca: str = ""
    """PEM file with the authorities whose clients may connect; empty: clients need no certificate."""

    max_explain_rows: int = 1000
    """Rows per request to `/explain`; more are answered with 413."""
    explain_timeout_seconds: float = 30.0
    """An explanation that takes longer is given up with 504."""
    explain_idle_seconds: float = 300.0
    """The process that explains ends when nobody has asked it for this long."""

    attribution_rows: int = 300
    """Rows of each version, drawn at random, that are explained every `attribution_seconds` to see what moves the answers; 0: none."""
    attribution_seconds: float = 60.0
    """Time between two such rounds; each starts a process that runs when no answer wants the processor, and ends it."""
    health_query_seconds: float = 30.0
    """Time between two health queries to each version of a route: rows of its training, whose answers are known. 0: none."""

    pyfunc_workers: int = 1
    """Processes for each version of a model that is no bundle: one of another MLflow flavour."""
    pyfunc_queue: int = 64
    """Requests that may wait for such a version; more are answered with 503 and Retry-After."""
    pyfunc_batch_rows: int = 1024
    """Rows of waiting requests that are joined into one prediction of such a version."""
    pyfunc_timeout_seconds: float = 30.0
    """A prediction that takes longer is answered with 504, and its process started anew; a wait for a free process ends with 503."""
    pyfunc_memory_bytes: int = 0
    """Address space of each such process; 0 for any."""
    pyfunc_environment: tuple[str, ...] = ()
    """Variables that such processes get beside those that libraries need (comma separated): nothing else of the server's environment."""

    log_flush_seconds: float = 1.0
    """Predictions and labels are appended to their Delta tables at most this often."""
    log_flush_rows: int = 10_000
    """Or as soon as this many rows wait."""
    log_queue_rows: int = 100_000
    """Rows that may wait; more are dropped and counted, never waited for."""
    log_compact_commits: int = 300
    """Small files are merged after this many appends; 0 never."""

    drain_seconds: float = 0.0
    """After SIGTERM, keep answering (and report not ready) this long, until load balancers have noticed."""
    shutdown_seconds: float = 8.0
    """Then wait at most this long for running requests, and as long again for the log to be written."""

    @property
    def end_seconds(self) -> float:
        """How long a process may take to end in order; who takes longer is stuck."""
        return self.drain_seconds + 3 * self.shutdown_seconds + 5

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
            name = variable(field.name)
            if text := environment.get(name):
                values[field.name] = _parse(field.name, text, type(field.default))
        return cls(**values)


def variable(field: str) -> str:
    """The environment variable that a field is read from."""
    return f"PERENNIAL_{field.upper()}" if field in _SHORT else f"PERENNIAL_SERVING_{field.upper()}"


def bounds(field: str) -> tuple[float, float]:
    """Least and greatest value of a field that is a number."""
    return _BOUNDS.get(field, (0, _MOST))


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _parse(field: str, text: str, kind: type) -> Any:
    if kind is str:
        return text
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        if (found := _WORDS.get(text.strip().lower())) is None:
            raise _wrong(field, text, "true or false")
        return found
    least, most = bounds(field)
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        what = "a whole number" if kind is int else "a number"
        upper = f" to {most:,.15g}" if most < _MOST else " or more"
        raise _wrong(field, text, f"{what}, {least:,.15g}{upper}")
    return value


def _wrong(field: str, text: str, expected: str) -> PlatformError:
    return PlatformError(f"{variable(field)} is {text!r}", expected=expected, next="correct or unset the variable")
