"""The controller's own metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from perennial_controller.cases import DecisionKind
from perennial_controller.ledger import Backlog
from perennial_controller.steps import Step
from perennial_spec import names

VERDICTS = ("pass", "fail", "inconclusive", "error")
_JUDGING = ("analyse", "compare", "experiment")
"""Tasks that judge a rollout begin so."""
UNKNOWN = ""
"""The label `pipeline` of events that name no pipeline of ours: what others send must not make new series."""


class ControllerMetrics:
    """Counters from this process's start, and gauges of the ledger."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.decisions = Counter(names.DECISIONS, "Decisions taken", ("pipeline", "decision"), registry=self.registry)
        self.deliveries = Counter(
            names.DELIVERIES,
            "Attempts to start a run in Airflow, by result: delivered, already_there, away, refused",
            ("pipeline", "result"),
            registry=self.registry,
        )
        self.rollbacks = Counter(
            names.ROLLBACKS,
            "Rollbacks by the controller itself, by result: done, away (tried again), refused (overtaken by somebody else)",
            ("pipeline", "result"),
            registry=self.registry,
        )
        self.rollout_verdicts = Counter(
            names.ROLLOUT_VERDICTS,
            "Steps of rollouts that were judged, by verdict; counted when their run has ended",
            ("pipeline", "verdict"),
            registry=self.registry,
        )
        self._backlog = Gauge(
            names.BACKLOG,
            "Events that are not decided, and runs that Airflow does not have yet",
            registry=self.registry,
        )
        self._oldest = Gauge(
            names.OLDEST_UNDELIVERED, "Age of the oldest of them; 0 when there is none", registry=self.registry
        )
        self._up = Gauge(names.LEDGER_UP, "1 when the ledger answers", registry=self.registry)

    def know(self, pipelines: Iterable[str]) -> None:
        """Let the counters of these pipelines begin with 0: `increase` does not see the first of what begins with 1."""
        for pipeline in pipelines:
            for decision in DecisionKind:
                self.decisions.labels(pipeline, str(decision))
            for result in ("delivered", "already_there", "away", "refused"):
                self.deliveries.labels(pipeline, result)
            for result in ("done", "away", "refused"):
                self.rollbacks.labels(pipeline, result)
            for verdict in VERDICTS:
                self.rollout_verdicts.labels(pipeline, verdict)

    def judged(self, pipeline: str, steps: Iterable[Step]) -> None:
        """Count what the steps of an ended rollout were judged to be."""
        for step in steps:
            if step.task.startswith(_JUDGING) and step.verdict in VERDICTS:
                self.rollout_verdicts.labels(pipeline, step.verdict).inc()

    def ledger(self, backlog: Backlog | None, now: datetime) -> None:
        """Take note of the backlog; None when the ledger does not answer: the last figures stay."""
        self._up.set(backlog is not None)
        if backlog is not None:
            self._backlog.set(backlog.undecided + backlog.undelivered)
            self._oldest.set(max((now - backlog.oldest).total_seconds(), 0.0) if backlog.oldest else 0.0)
