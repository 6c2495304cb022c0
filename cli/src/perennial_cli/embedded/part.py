"""What a part of the platform is: data, so that the supervisor can run any list of them."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Http:
    """Ready when a GET answers with a status below 400."""

    url: str
    kind: Literal["http"] = "http"


@dataclass(frozen=True)
class Tcp:
    """Ready when the port accepts a connection."""

    port: int
    host: str = "127.0.0.1"
    kind: Literal["tcp"] = "tcp"


@dataclass(frozen=True)
class Beat:
    """Ready when the JSON at `url` holds, at `path`, an ISO timestamp from after the process started.

    Airflow's scheduler has no port of its own: the API server tells when it last gave a sign of life. The timestamp must be
    newer than the process, or the last life's heartbeat would count for this one.
    """

    url: str
    path: tuple[str, ...]
    kind: Literal["beat"] = "beat"


@dataclass(frozen=True)
class Answers:
    """Ready when a command ends with exit code 0."""

    command: tuple[str, ...]
    kind: Literal["answers"] = "answers"


Ready = Http | Tcp | Beat | Answers

Kind = Literal["service", "task"]


@dataclass(frozen=True)
class Part:
    """One process of the platform, and how to look after it."""

    name: str
    command: tuple[str, ...]
    """The program and its arguments. No secrets here: every user of the machine can read them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's own environment."""
    ready: Ready | None = None
    """None: ready as soon as it runs."""
    needs: tuple[str, ...] = ()
    """Parts that must have been ready (services) or done (tasks) before this one starts."""
    kind: Kind = "service"
    """A service runs until it is stopped; a task ends by itself with exit code 0."""
    address: str | None = None
    """Where a person or a client finds it."""
    optional: bool = False
    """`up` neither waits for an optional part nor fails with it."""
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10.0
    """How long it may take to end before it is killed."""
    ready_seconds: float = 240.0
    """How long it may take to become ready (service) or to end (task) before that counts as a failure."""


@dataclass(frozen=True)
class Plan:
    """What a supervisor runs; written by `up`, read by the supervisor's process. Holds secrets: mode 0600."""

    instance: str
    """Identity of the state folder; every process carries it in PERENNIAL_INSTANCE, so that leftovers can be told."""
    parts: tuple[Part, ...]
