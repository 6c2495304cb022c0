"""Whether the model servers have followed the registry: asked of Prometheus, which knows every replica."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from perennial_spec import names
from perennial_spec.errors import MonitoringError
from perennial_steps.prometheus import Prometheus, Sample, quoted

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
SERVERS = names.REGISTRY_UP
"""Every model server exports it from its start on: its instances are the servers that there are."""


@dataclass(frozen=True)
class Followed:
    """How far the servers are with one revision of a route; instances by their Prometheus label."""

    servers: frozenset[str]
    on_route: frozenset[str]
    """Servers that have taken over the revision, or a later one."""
    loaded: frozenset[str]
    refused: frozenset[str]
    """Servers that have tried to load the version and must not serve it."""

    @property
    def complete(self) -> bool:
        return bool(self.servers) and self.servers <= self.on_route and self.servers <= self.loaded

    def __str__(self) -> str:
        total = len(self.servers)
        return (
            f"{len(self.on_route & self.servers)} of {total} model servers follow the route, "
            f"{len(self.loaded & self.servers)} have loaded the version"
        )


def followed(prometheus: Prometheus, pipeline: str, version: str, revision: int) -> Followed:
    """How far the servers are now, as of their last scrape."""
    labels = f"pipeline={quoted(pipeline)}"
    loaded = prometheus.query(f"{names.MODEL_LOADED}{{{labels}, version={quoted(version)}}}")
    return Followed(
        servers=_instances(prometheus.query(SERVERS)),
        on_route=_instances(prometheus.query(f"{names.ROUTE_REVISION}{{{labels}}} >= {revision}")),
        loaded=_instances(sample for sample in loaded if sample.value == 1),
        refused=_instances(sample for sample in loaded if sample.value == 0),
    )


def wait_until_followed(prometheus: Prometheus, pipeline: str, version: str, revision: int, seconds: float) -> Followed:
    """Until every server follows the revision and has the version, or one refuses it; the caller looks which.

    Raises:
        MonitoringError: Prometheus is away, or the servers have not followed within `seconds`.
    """
    end = time.monotonic() + seconds
    said = ""
    while True:
        state = followed(prometheus, pipeline, version, revision)
        if state.complete or state.refused:
            return state
        if str(state) != said:
            said = str(state)
            log.info("%s", said)
        if time.monotonic() >= end:
            raise MonitoringError(
                f"the model servers have not followed the route within {seconds:.0f} s: {state}",
                where=f"{prometheus.url}: {SERVERS}, {names.ROUTE_REVISION}, {names.MODEL_LOADED}",
                expected=f"revision {revision} of {pipeline} and version {version} on every server",
                next="look at the servers' log with: perennial logs server; then run the step again",
            )
        time.sleep(POLL_SECONDS)


def _instances(samples: Iterable[Sample]) -> frozenset[str]:
    return frozenset(sample.labels.get("instance", "") for sample in samples)
