"""What is known about a running platform: written by the supervisor, read by `status`, `up` and `down`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from perennial_cli.embedded.home import Home, write_private
from perennial_cli.embedded.part import Kind, Plan
from perennial_cli.embedded.process import Seen
from perennial_spec.errors import PlatformError

PartStatus = Literal[
    "waiting", "starting", "ready", "unhealthy", "done", "restarting", "failing", "stopping", "stopped"
]


@dataclass(frozen=True)
class PartState:
    """One part, as the supervisor sees it."""

    name: str
    kind: Kind = "service"
    status: PartStatus = "waiting"
    optional: bool = False
    pid: int | None = None
    started: float | None = None
    """When its process started, seconds since the epoch."""
    restarts: int = 0
    address: str | None = None
    took: float | None = None
    """Seconds from the start of its process until it was ready, or done."""
    message: str = ""
    """Why it is not running."""

    @property
    def settled(self) -> bool:
        """Nothing to wait for."""
        return self.status in ("ready", "done")


@dataclass(frozen=True)
class PlatformState:
    """The supervisor and its parts."""

    supervisor: Seen
    instance: str
    started: float
    stopping: bool = False
    parts: tuple[PartState, ...] = ()
    processes: tuple[Seen, ...] = field(default=(), repr=False)
    """Every process that the supervisor started, and their descendants, as last seen."""

    @property
    def healthy(self) -> bool:
        """Every part that is not optional is ready, or done."""
        return not self.stopping and all(part.settled for part in self.parts if not part.optional)


_STATE: TypeAdapter[PlatformState] = TypeAdapter(PlatformState)
_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


def write_state(home: Home, state: PlatformState) -> None:
    write_private(home.state, _STATE.dump_json(state, indent=1).decode())


def read_state(home: Home) -> PlatformState | None:
    """What the last supervisor wrote, whether or not it is still there; None when there is nothing, or nothing readable."""
    try:
        return _STATE.validate_json(home.state.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_plan(home: Home, plan: Plan) -> None:
    write_private(home.plan, _PLAN.dump_json(plan).decode())


def read_plan(home: Home) -> Plan:
    """What to run.

    Raises:
        PlatformError: there is no plan, or it is of another version.
    """
    try:
        return _PLAN.validate_json(home.plan.read_bytes())
    except (OSError, ValidationError) as error:
        raise PlatformError(
            "the supervisor's plan cannot be read",
            where=str(home.plan),
            expected="what `perennial up` wrote",
            next="start the platform with: perennial up",
        ) from error
