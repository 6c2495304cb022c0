"""Taking decisions: the policy between the ledger and the facts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from perennial_controller.cases import STARTED, Decision, DecisionKind, Event, Facts, History, Run
from perennial_controller.entry import Entry
from perennial_controller.events import run_id_of, target_dag
from perennial_controller.ledger import Ledger
from perennial_controller.metrics import UNKNOWN, ControllerMetrics
from perennial_controller.policy import decide, needs_facts, priority_of
from perennial_controller.specs import Specs
from perennial_spec.errors import PerennialError
from perennial_spec.pipeline import PipelineSpec

log = logging.getLogger(__name__)


class FindsFacts(Protocol):
    """Where facts come from."""

    async def find(self, pipeline: str, *, labels: bool = False) -> Facts:
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

    async def decide_new(self) -> None:
        """Decide where something has come in since. What is held waits for `decide_all`: in a flood it would be asked without end."""
        for pipeline in await self.ledger.pipelines_with_new_events():
            await self.decide_pipeline(pipeline)

    async def decide_pipeline(self, name: str) -> None:
        """Decide on one pipeline's open events, oldest first. What cannot be decided now stays open, and says why."""
        found = await self._find_out(name)
        if await self._decide(name, found):
            self.accepted()

    async def rehearse(self, name: str, asked: Event) -> Rehearsal:
        """What would be decided now, on something that is asked for and on what is open; nothing is written."""
        found, now = await self._find_out(name), self.clock()
        async with self.ledger.deciding(name) as deciding:
            history = await deciding.history(found.history_since(now))
            entries = await deciding.open_events()
        newer = superseded(entries)
        answer = decide(asked, history, found.spec, now, found.facts or Facts(), self.expiry)
        history = _with_run_of(answer, asked, history, now)
        others = []
        for entry in sorted(entries, key=lambda entry: (priority_of(entry.event()), entry.id)):
            event = replace(entry.event(), superseded_by=newer.get(entry.id))
            decision = self._one(entry, event, history, found, now)
            history = _with_run_of(decision, event, history, now)
            others.append((entry, decision))
        return Rehearsal(answer, tuple(others))

    async def _find_out(self, name: str) -> _Found:
        """What is needed for decisions on a pipeline, asked for before the lock is taken: a slow registry holds nobody else."""
        try:
            pipeline = self.specs.get(name)
        except PerennialError as error:
            return _Found(None, None, f"not decided yet: pipeline {name} is broken: {error.what}")
        if pipeline is None or not await self._any_needs_facts(name):
            return _Found(pipeline.spec if pipeline else None, None)
        try:
            return _Found(
                pipeline.spec, await self.facts.find(name, labels=pipeline.spec.retraining.min_new_labels > 0)
            )
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
            entries = await deciding.open_events()
            newer = superseded(entries)
            for entry in sorted(entries, key=lambda entry: (priority_of(entry.event()), entry.id)):
                decision = self._one(
                    entry, replace(entry.event(), superseded_by=newer.get(entry.id)), history, found, now
                )
                if await deciding.decide(entry, decision, now):
                    changed.append((entry, decision))
                if decision.kind in STARTED:
                    history = await deciding.history(since)
            if (started := _accepted_alert(changed)) and (also := _merged_into(changed, started)):
                await deciding.answers_also(started, also)
        for entry, decision in changed:  # counted only now that it is written
            label = entry.pipeline if found.spec is not None else UNKNOWN
            self.metrics.decisions.labels(label, str(decision.kind)).inc()
            log.info("decision %d on %s of %s: %s: %s", entry.id, entry.kind, name, decision.kind, decision.reason)
        return any(decision.kind in STARTED for _, decision in changed)

    def _one(self, entry: Entry, event: Event, history: History, found: _Found, now: datetime) -> Decision:
        lacks_facts = found.spec is not None and found.facts is None and needs_facts(event)
        if found.trouble and (found.spec is None or lacks_facts):
            return Decision(entry.decision, found.trouble, entry.run_id)
        if lacks_facts:  # it came in after the facts were asked for: the next look has them
            return Decision(entry.decision, entry.reason, entry.run_id)
        return decide(event, history, found.spec, now, found.facts or Facts(), self.expiry)


@dataclass(frozen=True)
class Rehearsal:
    """Decisions that are not taken."""

    answer: Decision
    """On what was asked for."""
    others: tuple[tuple[Entry, Decision], ...]
    """On what is open, in the order in which it would be decided after that."""


def _accepted_alert(decided: Sequence[tuple[Entry, Decision]]) -> Entry | None:
    """The alert that starts a run."""
    of = (entry for entry, decision in decided if decision.kind == DecisionKind.ACCEPTED and entry.kind == "alert")
    return next(of, None)


def _merged_into(decided: Sequence[tuple[Entry, Decision]], started: Entry) -> list[str]:
    """What the alerts say that the run of `started` answers as well."""
    run_id = run_id_of(started.kind, started.dedupe_key, started.received_at)
    return [entry.summary for entry, decision in decided if entry.kind == "alert" and decision.run_id == run_id]


def _with_run_of(decision: Decision, event: Event, history: History, now: datetime) -> History:
    """The history as it would be after a decision."""
    if decision.kind != DecisionKind.ACCEPTED:
        return history
    run = Run(target_dag(event.kind, event.pipeline), "that this would start", now, active=True, delivered=False)
    return replace(history, runs=(run, *history.runs))


def superseded(entries: Iterable[Entry]) -> dict[int, int]:
    """Of open events, the older ones of which a newer says the same: id to the id of the newest."""
    newest: dict[str, int] = {}
    for entry in entries:
        if (subject := entry.subject) is not None and entry.resolved_at is None:
            newest[subject] = max(entry.id, newest.get(subject, 0))
    return {
        entry.id: newest[entry.subject]
        for entry in entries
        if entry.subject in newest and entry.id < newest[entry.subject]
    }


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
