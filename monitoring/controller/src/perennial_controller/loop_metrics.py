"""The loop itself as metrics: the last good run, failures, budget, what is held back, and whether alerts arrive at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from perennial_controller.airflow import Airflow
from perennial_controller.figures import HELD_KINDS, RESULTS, Figures, Runs, budget_left, compute_left, run_due
from perennial_controller.marks import WATCHDOG, schedule_mark
from perennial_controller.specs import Specs
from perennial_spec import names
from perennial_spec.load import Pipeline

_MOMENTS: tuple[tuple[str, str, Callable[[Runs], datetime | None]], ...] = (
    (
        names.RUN_LAST_SUCCESS,
        "When the last training run ended that judged a model, whatever the verdict",
        lambda runs: runs.good_ended,
    ),
    (
        names.RUN_ACTIVE_SINCE,
        "When Airflow got the training run that has not ended; none while none is active",
        lambda runs: runs.active_since,
    ),
    (
        names.RUN_UNDELIVERED_SINCE,
        "When the oldest run was accepted that Airflow does not have yet; none when it has all",
        lambda runs: runs.undelivered_since,
    ),
)


@dataclass(eq=False)  # a registry of Prometheus keeps its collectors in a dict
class LoopMetrics:
    """A Prometheus collector over what was last read from the ledger; pipelines that are gone are left out."""

    specs: Specs
    airflow: Airflow
    clock: Callable[[], datetime]
    figures: Figures | None = None
    """None until the ledger has answered; the last figures stay while it does not."""

    def collect(self) -> Iterator[Metric]:
        if self.airflow.answers is not None:
            up = float(self.airflow.answers)
            yield GaugeMetricFamily(names.AIRFLOW_UP, "1 when Airflow answered the last time it was asked", value=up)
        if self.figures is None:
            return
        last = self.figures.marks.get(WATCHDOG)
        yield GaugeMetricFamily(
            names.WATCHDOG_RECEIVED,
            "When the alert that fires always last came from Alertmanager; 0: never",
            value=last.timestamp() if last else 0.0,
        )
        known = {name: self.figures.runs.get(name, Runs()) for name in self.specs.names()}
        yield from _of_runs(known)
        paused = GaugeMetricFamily(
            names.PAUSED_SINCE, "When a person paused retraining; none while nobody has", labels=("pipeline",)
        )
        for name in known:
            if (since := self.figures.paused_since(name, self.clock())) is not None:
                paused.add_metric((name,), since.timestamp())
        yield paused
        yield from _of_specs(self.specs.all(), self.figures, self.clock())


def _of_runs(known: dict[str, Runs]) -> Iterator[Metric]:
    at = ("pipeline",)
    total = CounterMetricFamily(
        names.RUNS, "Training runs that have ended, by what came of them", labels=(*at, "outcome")
    )
    failures = GaugeMetricFamily(
        names.RUN_FAILURES_IN_A_ROW, "Training runs that failed since the last that judged a model", labels=at
    )
    vain = GaugeMetricFamily(
        names.RETRAININGS_SINCE_PROMOTION,
        "Retrainings by alerts since one has led to a new champion, or somebody has resumed",
        labels=at,
    )
    held = GaugeMetricFamily(names.HELD_EVENTS, "Alerts that are held back, by why", labels=(*at, "decision"))
    moments = [GaugeMetricFamily(name, meaning, labels=at) for name, meaning, _ in _MOMENTS]
    for name, runs in known.items():
        for result in RESULTS:
            total.add_metric((name, result), runs.results.get(result, 0))
        for decision in HELD_KINDS:
            held.add_metric((name, decision), runs.held.get(decision, 0))
        failures.add_metric((name,), runs.failures_in_a_row)
        vain.add_metric((name,), runs.in_vain)
        for family, (_, _, moment_of) in zip(moments, _MOMENTS, strict=True):
            if (moment := moment_of(runs)) is not None:
                family.add_metric((name,), moment.timestamp())
    yield from (total, failures, vain, held, *moments)


def _of_specs(pipelines: list[Pipeline], figures: Figures, now: datetime) -> Iterator[Metric]:
    left = GaugeMetricFamily(
        names.BUDGET_LEFT, "Runs that alerts may still start (retraining.budget)", labels=("pipeline",)
    )
    breaker = GaugeMetricFamily(
        names.BREAKER_OPEN,
        "1 while retrainings by alerts have led to nothing too often, and no alert starts another",
        labels=("pipeline",),
    )
    seconds = GaugeMetricFamily(
        names.BUDGET_SECONDS_LEFT,
        "Time that runs may still take before alerts start none (retraining.budget.compute); none without that limit",
        labels=("pipeline",),
    )
    due = GaugeMetricFamily(
        names.RUN_DUE,
        "When a run that judges a model should have ended, by retraining.schedule; none without a schedule, and while retraining is paused",
        labels=("pipeline",),
    )
    for pipeline in pipelines:
        runs = figures.runs.get(pipeline.name, Runs())
        left.add_metric((pipeline.name,), budget_left(pipeline.spec, runs, now))
        if (compute := compute_left(pipeline.spec, runs, now)) is not None:
            seconds.add_metric((pipeline.name,), compute.total_seconds())
        breaker.add_metric((pipeline.name,), float(runs.in_vain >= pipeline.spec.monitoring.runs.without_promotion))
        if figures.paused_since(pipeline.name, now) is not None:
            continue  # no tick of the schedule starts a run meanwhile
        seen = figures.marks.get(schedule_mark(pipeline.name, pipeline.spec.retraining.schedule or ""))
        resumed = figures.paused_until(pipeline.name, now)
        if (moment := run_due(pipeline.spec, seen, runs.good_accepted, resumed)) is not None:
            due.add_metric((pipeline.name,), moment.timestamp())
    yield from (left, seconds, breaker, due)
