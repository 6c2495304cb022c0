"""compare: what the challenger, as a shadow, has answered to the very rows that the champion has answered. One look; it is looked at again
until there is an answer (`perennial_spec.step`, `pace`).

What is compared is in the prediction log: a shadow's row has the id of the answer beside which it was made. Nothing but the rows on which
the two are furthest apart is written, to the challenger's run, when it is over. It can be killed at any point and run again.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perennial_registry.registry import Registry
from perennial_spec.deployment import Deployment
from perennial_spec.errors import MonitoringError, PerennialError, PlatformError, RegistryError
from perennial_spec.step import Verdict
from perennial_spec.units import format_duration
from perennial_steps import figures, pace
from perennial_steps.analysis import Judgement, judge
from perennial_steps.challenger import Contest, again, contest, no
from perennial_steps.context import Outcome, StepContext
from perennial_steps.experiments.hold import Hold
from perennial_steps.prometheus import Prometheus
from perennial_steps.shadows.agreement import Agreement, judge_agreement
from perennial_steps.shadows.pairs import compare_pairs, write_disagreements
from perennial_steps.training.tracking import Tracking, TrackingRest

log = logging.getLogger(__name__)

FILE = "shadow/disagreements.csv"


@dataclass(frozen=True)
class Watch:
    """What a look tells the next one."""

    since: float | None = None
    """Unix seconds; what was answered before does not count."""
    held_since: float | None = None
    lost: float = 0.0
    """As `Hold`."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Watch:
        return cls(**{each.name: state[each.name] for each in fields(cls) if each.name in state})

    @property
    def hold(self) -> Hold:
        return Hold(self.held_since, self.lost)

    def holding(self, hold: Hold) -> Watch:
        return replace(self, held_since=hold.held_since, lost=hold.lost)


def run(context: StepContext) -> Outcome:
    """One look: pass, fail, inconclusive, or pending.

    Raises:
        PlatformError: it was not told where the registry, Prometheus or the store is.
    """
    for part in ("mlflow_url", "prometheus_url", "store"):
        context.platform.need(part)
    watch = Watch.of(context.request.state)
    try:
        return _look(context, watch.holding(watch.hold.over(time.time())))
    except (MonitoringError, RegistryError, PlatformError) as error:
        return _held(context, watch.holding(watch.hold.begun(time.time())), error)


def _look(context: StepContext, watch: Watch) -> Outcome:
    deployment = context.pipeline.spec.deployment
    with Registry(context.platform.need("mlflow_url")) as registry:
        state = contest(context, registry)
        version = state.challenger.version
        if state.champion is None or state.is_won:
            why = "it is champion already" if state.is_won else "there is no champion to compare it with"
            return Outcome(f"version {version} is not compared: {why}", {"model_version": version})
        if state.is_outdated:
            return again(state, "deploy")
        if version not in state.route.shadow:
            by = state.route.changed_by or "somebody"
            moved = f"version {version} is no shadow any more: {by} changed the route (revision {state.route.revision})"
            return no(moved, version, reason=moved)
    watch = watch if watch.since is not None else replace(watch, since=time.time())
    assert watch.since is not None and state.champion is not None
    seen = compare_pairs(context, state.champion.version, version, datetime.fromtimestamp(watch.since, UTC))
    harm = _served(context, state, watch.since)
    return _judged(context, watch, state, seen, judge_agreement(seen, deployment.shadow, harm))


def _served(context: StepContext, state: Contest, since: float) -> Judgement:
    """Failed requests and predictions of the shadow, against the limits of `abort_on`; its latency costs nobody anything."""
    name, deployment = context.pipeline.name, context.pipeline.spec.deployment
    kept = tuple(limit for limit in deployment.abort_on if limit.latency_p99 is None)
    champion = state.champion.version if state.champion else ""
    with Prometheus(context.platform.need("prometheus_url")) as prometheus:
        now = prometheus.now()
        ours, theirs = (
            figures.of_version(prometheus, name, each, since, now) for each in (state.challenger.version, champion)
        )
    return judge(ours, theirs, deployment.model_copy(update={"abort_on": kept}))


def _judged(context: StepContext, watch: Watch, state: Contest, seen: Agreement, judgement: Judgement) -> Outcome:
    deployment, version = context.pipeline.spec.deployment, state.challenger.version
    assert watch.since is not None
    elapsed, bake = time.time() - watch.since - watch.lost, deployment.bake.total_seconds()
    longest = max(deployment.bake, deployment.max_bake).total_seconds()
    undecided = judgement.verdict is Verdict.INCONCLUSIVE and elapsed < longest
    outputs = {
        "model_version": version,
        "standing": judgement.verdict,
        "watched_seconds": round(elapsed, 1),
        "held_seconds": round(watch.lost, 1),
        **seen.outputs(),
    }
    if elapsed < bake or undecided:
        return Outcome(
            f"version {version} has shadowed for {elapsed:.0f} s: {seen}",
            outputs,
            seen.metrics(),
            Verdict.PENDING,
            again_after=pace.until_next(elapsed, bake, longest),
            state=asdict(watch),
        )
    kept = _keep(context, state, datetime.fromtimestamp(watch.since, UTC)) if seen.rows else None
    return _answer(version, judgement, deployment, {**outputs, **({"disagreements": kept} if kept else {})}, seen)


def _answer(
    version: str, judgement: Judgement, deployment: Deployment, outputs: dict[str, Any], seen: Agreement
) -> Outcome:
    verdict, text = judgement.verdict, "; ".join(judgement.sentences)
    at = f"version {version} as a shadow"
    if verdict is Verdict.INCONCLUSIVE:
        text += f" after {format_duration(max(deployment.bake, deployment.max_bake))}"
        if deployment.on_inconclusive == "continue":
            return Outcome(f"{at} goes on, as on_inconclusive says: {text}", outputs, seen.metrics())
    if verdict is Verdict.PASS:
        return Outcome(f"{at} holds: {text}", outputs, seen.metrics())
    summary = f"{at} {'fails' if verdict is Verdict.FAIL else 'is inconclusive'}: {text}"
    return Outcome(summary, {**outputs, "reason": summary}, seen.metrics(), verdict, summary)


def _held(context: StepContext, watch: Watch, error: PerennialError) -> Outcome:
    """Nothing is known: the shadow stays one, until that has lasted for `max_hold`."""
    longest, now = context.pipeline.spec.deployment.max_hold, time.time()
    version, held = str(context.input("train", "model_version")), watch.hold.seconds(now)
    outputs = {"model_version": version, "standing": Verdict.ERROR, "held_seconds": round(held, 1)}
    if held >= longest.total_seconds():
        summary = f"version {version} as a shadow could not be looked at for {format_duration(longest)}: {error.what}"
        return Outcome(summary, {**outputs, "reason": summary}, verdict=Verdict.FAIL, failure=f"{summary}\n{error}")
    log.warning("held for %.0f s: %s", held, error)
    pause = min(pace.until_asked_again(watch.hold.current(now)), longest.total_seconds() - held)
    said = f"the comparison with version {version} is held: {error.what}"
    return Outcome(said, outputs, verdict=Verdict.PENDING, again_after=pause, state=asdict(watch))


def _keep(context: StepContext, state: Contest, since: datetime) -> str | None:
    """Upload the rows on which the two are furthest apart; where a person finds them."""
    assert state.champion is not None
    count = context.pipeline.spec.deployment.shadow.disagreements
    if not count:
        return None
    url = context.platform.need("mlflow_url")
    with tempfile.TemporaryDirectory(prefix="perennial-shadow-") as folder:
        write_disagreements(context, state.champion.version, state.challenger.version, since, Path(folder) / FILE)
        rest = TrackingRest(url)
        try:
            tracking = Tracking(rest, state.challenger.name)
            made = tracking.get(state.challenger.run_id)
            tracking.upload(made, Path(folder))
        finally:
            rest.close()
    return made.page(url, FILE)
