"""Taking decisions: the policy between the ledger and the facts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from perennial_controller.cases import STARTED, Decision, Facts, History
from perennial_controller.entry import Entry
from perennial_controller.ledger import Ledger
from perennial_controller.metrics import UNKNOWN, ControllerMetrics
from perennial_controller.policy import decide, needs_facts
from perennial_controller.specs import Specs
from perennial_spec.errors import PerennialError
from perennial_spec.pipeline import PipelineSpec

log = logging.getLogger(__name__)


class FindsFacts(Protocol):
    """Where facts come from."""

    async def find(self, pipeline: str) -> Facts:
        """Raises PerennialError when they cannot be had now."""


@dataclass(frozen=True)
class Decider:
    """Decides on what is open in the ledger, pipeline by pipeline."""

    ledger: Ledger
    specs: Specs
    facts: FindsFacts
    metrics: ControllerMetrics
    expiry: timedelta
    """An alert of which no copy came for so long has ended."""
    clock: Callable[[], datetime]
    accepted: Callable[[], None]
    """Called when a run was accepted and waits in the outbox."""

    async def decide_all(self) -> None:
        """Decide on every open event of every pipeline. One pipeline's trouble does not hold the others."""
        now = self.clock()
        await self.ledger.succeed(now, now - self.expiry)
        for pipeline in await self.ledger.pipelines_with_open_events():
            await self.decide_pipeline(pipeline)

    async def decide_pipeline(self, name: str) -> None:
        """Decide on one pipeline's open events, oldest first. What cannot be decided now stays open, and says why."""
        found = await self._find_out(name)
        if await self._decide(name, found):
            self.accepted()

    async def _find_out(self, name: str) -> _Found:
        """What is needed for decisions on a pipeline, asked for before the lock is taken: a slow registry holds nobody else."""
        try:
            pipeline = self.specs.get(name)
        except PerennialError as error:
            return _Found(None, None, f"not decided yet: pipeline {name} is broken: {error.what}")
        if pipeline is None or not await self._any_needs_facts(name):
            return _Found(pipeline.spec if pipeline else None, None)
        try:
            return _Found(pipeline.spec, await self.facts.find(name))
        except PerennialError as error:
            return _Found(pipeline.spec, None, f"not decided yet: {error.what}")

    async def _any_needs_facts(self, name: str) -> bool:
        async with self.ledger.deciding(name) as deciding:
            return any(needs_facts(entry.event()) for entry in await deciding.open_events())

    async def _decide(self, name: str, found: _Found) -> bool:
        now = self.clock()
        changed: list[tuple[Entry, Decision]] = []
        async with self.ledger.deciding(name) as deciding:
            since = found.history_since(now)
            history = await deciding.history(since)
            for entry in await deciding.open_events():
                decision = self._one(entry, history, found, now)
                if await deciding.decide(entry, decision, now):
                    changed.append((entry, decision))
                if decision.kind in STARTED:
                    history = await deciding.history(since)
        for entry, decision in changed:  # counted only now that it is written
            label = entry.pipeline if found.spec is not None else UNKNOWN
            self.metrics.decisions.labels(label, str(decision.kind)).inc()
            log.info("decision %d on %s of %s: %s: %s", entry.id, entry.kind, name, decision.kind, decision.reason)
        return any(decision.kind in STARTED for _, decision in changed)

    def _one(self, entry: Entry, history: History, found: _Found, now: datetime) -> Decision:
        event = entry.event()
        lacks_facts = found.spec is not None and found.facts is None and needs_facts(event)
        if found.trouble and (found.spec is None or lacks_facts):
            return Decision(entry.decision, found.trouble, entry.run_id)
        if lacks_facts:  # it came in after the facts were asked for: the next look has them
            return Decision(entry.decision, entry.reason, entry.run_id)
        return decide(event, history, found.spec, now, found.facts or Facts(), self.expiry)


@dataclass(frozen=True)
class _Found:
    """What was found out before the lock was taken."""

    spec: PipelineSpec | None
    """None: there is no such pipeline, or `trouble` says why it cannot be read."""
    facts: Facts | None
    """None: no event needed them, or `trouble` says why they cannot be had."""
    trouble: str = ""
    """Why something could not be found out; empty when everything was."""

    def history_since(self, now: datetime) -> datetime:
        if self.spec is None:
            return now
        return now - max(self.spec.retraining.cooldown, self.spec.retraining.budget.per)
