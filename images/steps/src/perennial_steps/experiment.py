"""experiment: compares champion and challenger on live traffic, by what came of their answers, until one of them is better beyond doubt.

Each run is one look. What must be known between two looks is in the registry: the challenger's tag `perennial.experiment` says when the
experiment began, and everything else is computed anew from the log. So it can be killed at any point and run again.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from perennial_registry.registry import Registry
from perennial_spec.errors import ContractError, MonitoringError, PerennialError, PlatformError, RegistryError
from perennial_spec.route import Route, split
from perennial_spec.step import Verdict
from perennial_spec.units import format_duration
from perennial_steps import pace
from perennial_steps.challenger import Contest, contest, no, weights
from perennial_steps.context import Outcome, StepContext
from perennial_steps.experiments import dealt, guards, record
from perennial_steps.experiments.hold import Hold
from perennial_steps.experiments.look import Asked, Look
from perennial_steps.experiments.record import Record
from perennial_steps.prometheus import Prometheus
from perennial_steps.training.tracking import Tracking, TrackingRest

log = logging.getLogger(__name__)

LEISURE = 20
"""The pause is at least so many times as long as the look was: a log that takes long to read is read less often."""
PLOT = "experiment/experiment.png"


@dataclass(frozen=True)
class _Experiment:
    """The experiment of one run."""

    context: StepContext
    registry: Registry
    state: Contest
    record: Record


_STRATEGIES: dict[str, Callable[[Asked], Look]] = {"ab": dealt.look}


def run(context: StepContext) -> Outcome:
    """One look at the experiment of this run's challenger: pass, fail, inconclusive, or pending. The first one begins it.

    Raises:
        ContractError: the strategy is none that experiments.
        PlatformError: it was not told where the registry, Prometheus or the store is.
    """
    for field in ("mlflow_url", "prometheus_url", "store"):
        context.platform.need(field)
    strategy = context.pipeline.spec.deployment.strategy
    if strategy not in _STRATEGIES:
        expected = f"one that experiments: {', '.join(_STRATEGIES)}"
        raise ContractError(f"the strategy is {strategy}", where="deployment.strategy", expected=expected)
    start, hold = time.monotonic(), Hold.of(context.request.state)
    try:
        return _look(context, hold.over(time.time()), start)
    except (MonitoringError, RegistryError, PlatformError) as error:
        return _held(context, hold.begun(time.time()), error)


def _held(context: StepContext, hold: Hold, error: PerennialError) -> Outcome:
    """Nothing is known: the shares stay, until that has lasted for `max_hold`."""
    longest, now = context.pipeline.spec.deployment.max_hold, time.time()
    version, held = str(context.input("train", "model_version")), hold.seconds(now)
    outputs = {"model_version": version, "standing": Verdict.ERROR, "held_seconds": round(held, 1)}
    if held >= longest.total_seconds():
        summary = (
            f"the experiment with version {version} was without figures for {format_duration(longest)}: {error.what}"
        )
        return Outcome(summary, {**outputs, "reason": summary}, verdict=Verdict.FAIL, failure=f"{summary}\n{error}")
    log.warning("held for %.0f s: %s", held, error)
    pause = min(pace.until_asked_again(hold.current(now)), longest.total_seconds() - held)
    said = f"the experiment with version {version} is held: {error.what}"
    return Outcome(said, outputs, verdict=Verdict.PENDING, again_after=pause, state=asdict(hold))


def _look(context: StepContext, hold: Hold, start: float) -> Outcome:
    with (
        Registry(context.platform.need("mlflow_url")) as registry,
        Prometheus(context.platform.need("prometheus_url")) as prometheus,
    ):
        state = contest(context, registry)
        version = state.challenger.version
        if state.champion is None or state.is_won:
            why = "it is champion already" if state.is_won else "there is no champion to compare it with"
            return Outcome(f"no experiment with version {version}: {why}", {"model_version": version})
        now = datetime.fromtimestamp(prometheus.now(), UTC)
        begun = record.read(state.challenger, context.request.run_key) or _begin(context, registry, state, now)
        if begun.outcome:
            return _told(begun.outcome)
        if moved := _moved(context, registry.route(context.pipeline.name), state):
            return no(moved, version, reason=moved)
        this = _Experiment(context, registry, state, begun)
        deployment = context.pipeline.spec.deployment
        if harm := guards.broken(prometheus, state, deployment, begun.began.timestamp(), now.timestamp()):
            said = _sentence(version, "does harm", (harm,))
            return _over(
                this, Outcome(said, {"model_version": version, "standing": Verdict.FAIL}, verdict=Verdict.FAIL)
            )
        asked = Asked(context.pipeline, context.platform, version, state.champion.version, begun.began, now)
        look = _STRATEGIES[deployment.strategy](asked)
        seen = _outcome(this, look, now - begun.began, hold)
        if seen.verdict is not Verdict.PENDING:
            return _over(this, seen, look)
        pause = _pause(now - begun.began, deployment.experiment.max_duration, time.monotonic() - start)
        return replace(seen, again_after=pause, state=asdict(hold))


def _begin(context: StepContext, registry: Registry, state: Contest, now: datetime) -> Record:
    begun = Record(context.pipeline.spec.deployment.strategy, context.request.run_key, now.isoformat())
    record.write(registry, state.challenger, begun)
    return begun


def _moved(context: StepContext, route: Route, state: Contest) -> str | None:
    """Why the traffic is not dealt out as the experiment needs it, or None."""
    deployment = context.pipeline.spec.deployment
    wanted = Route(weights=weights(state, deployment.experiment.share))
    same = all(math.isclose(route.weights.get(v, 0.0), share, abs_tol=1e-9) for v, share in wanted.weights.items())
    if same and route.assignment == "sticky":
        return None
    return (
        f"the experiment needs the traffic {split(wanted)}, but {route.changed_by or 'somebody'} made it {split(route)} "
        f"(revision {route.revision})"
    )


def _outcome(this: _Experiment, look: Look, age: timedelta, hold: Hold) -> Outcome:
    """What the look comes to; `pending` when it is not the last."""
    deployment, verdict = this.context.pipeline.spec.deployment, look.judgement.verdict
    version, champion = this.state.challenger.version, this.state.champion.version if this.state.champion else None
    watched = {"watched_seconds": round(age.total_seconds(), 1), "held_seconds": round(hold.lost, 1)}
    about = {
        "model_version": version,
        "champion_version": champion,
        "strategy": deployment.strategy,
        "standing": verdict,
    }
    outputs = {**about, **watched, **look.figures}
    metrics = {key: float(value) for key, value in look.figures.items() if isinstance(value, int | float)}
    sentences = look.judgement.sentences
    if verdict is Verdict.PASS:
        return Outcome(_sentence(version, f"is better than version {champion}", sentences), outputs, metrics)
    if verdict is Verdict.FAIL:
        said = _sentence(version, f"is not better than version {champion}", sentences)
        return Outcome(said, outputs, metrics, Verdict.FAIL)
    after = f"after {format_duration(timedelta(seconds=round(age.total_seconds())))}"
    if age < deployment.experiment.max_duration:
        return Outcome(_sentence(version, f"is undecided {after}", sentences), outputs, metrics, Verdict.PENDING)
    if verdict is Verdict.INCONCLUSIVE and deployment.on_inconclusive == "continue":
        goes_on = f"is undecided {after}, and goes on, as on_inconclusive says"
        return Outcome(_sentence(version, goes_on, sentences), outputs, metrics)
    return Outcome(_sentence(version, f"is undecided {after}", sentences), outputs, metrics, verdict)


def _over(this: _Experiment, seen: Outcome, look: Look | None = None) -> Outcome:
    """Keep what came of it with the version: plot and record. Run again after that, the step says the same."""
    outputs = dict(seen.outputs)
    if look:
        outputs["plot_uri"] = _upload(this, look)
    if seen.verdict is not Verdict.PASS:
        outputs["reason"] = seen.summary
    kept = {"verdict": seen.verdict.value, "summary": seen.summary, "outputs": outputs, "metrics": seen.metrics}
    if seen.verdict is not Verdict.ERROR:
        record.write(this.registry, this.state.challenger, replace(this.record, outcome=kept))
    return _told(kept)


def _told(kept: Mapping[str, Any]) -> Outcome:
    verdict = Verdict(kept["verdict"])
    failure = None if verdict is Verdict.PASS else kept["summary"]
    return Outcome(kept["summary"], dict(kept["outputs"]), dict(kept["metrics"]), verdict, failure)


def _upload(this: _Experiment, look: Look) -> str:
    """The plot as an artifact of the run that made the challenger; its URI."""
    rest = TrackingRest(this.context.platform.need("mlflow_url"))
    try:
        with tempfile.TemporaryDirectory(prefix="perennial-experiment-") as folder:
            look.paint(Path(folder, PLOT))
            tracking = Tracking(rest, this.state.challenger.name)
            run_of_version = tracking.get(this.state.challenger.run_id)
            tracking.upload(run_of_version, Path(folder))
    finally:
        rest.close()
    return f"{run_of_version.artifact_uri}/{PLOT}"


def _pause(age: timedelta, longest: timedelta, took: float) -> float:
    """Seconds until the next look."""
    end = longest.total_seconds()
    leisurely = LEISURE * took if took > 1 else 0.0
    return max(pace.until_next(age.total_seconds(), end, end), leisurely)


def _sentence(version: str, what: str, why: tuple[str, ...]) -> str:
    return f"version {version} {what}: {'; '.join(why)}"
