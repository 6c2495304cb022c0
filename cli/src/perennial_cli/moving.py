"""What a person's commands that move all of the traffic share: the ledger is told, and the model servers are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from perennial_cli.clients.controller import Controller
from perennial_cli.console import make_console
from perennial_spec.errors import MonitoringError, PerennialError
from perennial_spec.platform import Platform

FOLLOW_SECONDS = 60.0
NOTE_SECONDS = 1.0
"""The traffic waits for the ledger no longer than this."""


@dataclass(frozen=True)
class Moved:
    """All of a pipeline's traffic, given to one version."""

    pipeline: str
    version: str
    revision: int
    began: float
    """When that was ordered, by the monotonic clock."""


def note(platform: Platform, tell: Callable[[Controller], None]) -> None:
    """Tell the ledger. The traffic does not wait for its paperwork: a controller that is away or slow is told of, and nothing more."""
    try:
        tell(Controller(platform, NOTE_SECONDS))
    except (PerennialError, OSError) as error:
        make_console(stderr=True).print(f"the ledger does not know of this: {error}", markup=False)


def wait(platform: Platform, moved: Moved, instead: str) -> None:
    """Until every model server answers with the version, and say so.

    Args:
        instead: what a person can do when the servers refuse it.

    Raises:
        MonitoringError: they refuse it, or have not followed within `FOLLOW_SECONDS`; or Prometheus is away.
    """
    from perennial_steps.fleet import wait_until_followed
    from perennial_steps.prometheus import Prometheus

    with Prometheus(platform.need("prometheus_url")) as prometheus:
        there = wait_until_followed(prometheus, moved.pipeline, moved.version, moved.revision, FOLLOW_SECONDS)
    if there.refused:
        raise MonitoringError(
            f"version {moved.version} is refused by {', '.join(sorted(there.refused))}",
            where="the model server's log",
            expected="a version that loads and predicts as it did when it was trained",
            next=f"perennial logs server; or {instead}",
        )
    took = time.monotonic() - moved.began
    make_console().print(
        f"all {len(there.servers)} model servers answer with version {moved.version}, {took:.1f} s after the order"
    )
