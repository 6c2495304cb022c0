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
from perennial_spec.route import Arms, Route, split
from perennial_spec.step import Verdict
from perennial_spec.units import format_duration
from perennial_steps import pace
from perennial_steps.challenger import Contest, contest, no, weights
from perennial_steps.context import Outcome, StepContext
from perennial_steps.experiments import dealt, drawn, guards, record
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
    route: Route
    """As it was before the look."""

    @property
    def champion(self) -> str:
        return self.record.champion

    @property
    def since(self) -> datetime:
        return self.record.began


_ASSIGNMENTS = {"ab": "sticky", "bandit": "bandit"}
_STRATEGIES: dict[str, Callable[[Asked], Look]] = {"ab": dealt.look, "bandit": drawn.look}


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
        begun = record.read(state.challenger, context.request.run_key)
        if told := _without_looking(context, state, begun):
            return told
        now = datetime.fromtimestamp(prometheus.now(), UTC)
        this = _begun(context, registry, state, begun, now)
        if harm := guards.broken(
            prometheus, state, context.pipeline.spec.deployment, this.since.timestamp(), now.timestamp()
        ):
            return _harmful(this, harm)
        look = _STRATEGIES[this.record.strategy](
            Asked(context.pipeline, context.platform, state.challenger.version, this.champion, this.since, now)
        )
        seen = _outcome(this, look, now - this.since, hold)
        if seen.verdict is not Verdict.PENDING:
            return _over(this, seen, look)
        if this.record.strategy == "bandit":
            _learn(context, registry, this.route, look.arms)
        longest = context.pipeline.spec.deployment.experiment.max_duration
        pause = _pause(now - this.since, longest, time.monotonic() - start)
        return replace(seen, again_after=pause, state=asdict(hold))


def _without_looking(context: StepContext, state: Contest, begun: Record | None) -> Outcome | None:
    """What is known without any figures, or None."""
    version, champion = state.challenger.version, state.champion.version if state.champion else None
    if champion is None or state.is_won:
        why = "it is champion already" if state.is_won else "there is no champion to compare it with"
        return Outcome(f"no experiment with version {version}: {why}", {"model_version": version})
    if begun and begun.outcome:
        return _told(begun.outcome)
    another = begun is not None and begun.champion != champion
    moved = _moved(context, state, first=begun is None or another)
    if state.is_outdated or (another and moved):
        return _deal_again(version, champion)
    refusal = state.refusal or moved
    return no(refusal, version, reason=refusal) if refusal else None


def _deal_again(version: str, champion: str) -> Outcome:
    """Another version is champion now. `deploy` has the challenger judged against it, and gives it its share of the traffic again."""
    summary = (
        f"version {champion} is champion now: version {version} is judged against it, and the experiment begins anew"
    )
    return Outcome(summary, {"model_version": version}, verdict=Verdict.PENDING, again_after=0.0, first="deploy")


def _begun(
    context: StepContext, registry: Registry, state: Contest, begun: Record | None, now: datetime
) -> _Experiment:
    """The experiment with today's champion, which begins now if it has not before: first the route of a bandit, then the record."""
    champion = state.champion.version if state.champion else ""
    if begun is not None and begun.champion == champion:
        return _Experiment(context, registry, state, begun, state.route)
    route, strategy = state.route, context.pipeline.spec.deployment.strategy
    if strategy == "bandit":
        route = _learn(context, registry, route, {})
    begins = Record(strategy, context.request.run_key, champion, now.isoformat())
    record.write(registry, state.challenger, begins)
    return _Experiment(context, registry, state, begins, route)


def _learn(context: StepContext, registry: Registry, route: Route, arms: Arms) -> Route:
    """From now on the servers draw from these arms: the next revision after `route`, which was read before the look.

    Raises:
        RegistryError: somebody else changed the route; the next look sees how.
    """
    after = route.with_arms(arms, context.request.run_key)
    return route if after is route else registry.write_route(context.pipeline.name, after)


def _moved(context: StepContext, state: Contest, *, first: bool) -> str | None:
    """Why the traffic is not dealt out as the experiment needs it, or None. Before the first look a bandit's is as `deploy` left it."""
    deployment, route = context.pipeline.spec.deployment, state.route
    drawn_by = (
        {"bandit", "sticky"} if deployment.strategy == "bandit" and first else {_ASSIGNMENTS[deployment.strategy]}
    )
    wanted = weights(state, deployment.experiment.share)
    same = all(math.isclose(route.weights.get(v, 0.0), share, abs_tol=1e-9) for v, share in wanted.items())
    if same and route.assignment in drawn_by:
        return None
    return (
        f"the experiment needs the traffic {split(Route(weights=wanted))} ({deployment.strategy}), but {route.changed_by or 'somebody'} "
        f"made it {split(route)} ({route.assignment}, revision {route.revision})"
    )


def _harmful(this: _Experiment, harm: str) -> Outcome:
    version = this.state.challenger.version
    said = _sentence(version, "does harm", (harm,))
    return _over(this, Outcome(said, {"model_version": version, "standing": Verdict.FAIL}, verdict=Verdict.FAIL))


def _outcome(this: _Experiment, look: Look, age: timedelta, hold: Hold) -> Outcome:
    """What the look comes to; `pending` when it is not the last."""
    deployment, verdict = this.context.pipeline.spec.deployment, look.judgement.verdict
    version, champion = this.state.challenger.version, this.champion
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
    after = f"after {_rounded(age)}"
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


def _rounded(age: timedelta) -> str:
    """`3d`, `26h`, `5m`: in the unit that people would use."""
    seconds = age.total_seconds()
    unit = next(unit for unit in (86400, 3600, 60, 1) if seconds >= 3 * unit or unit == 1)
    return format_duration(timedelta(seconds=seconds // unit * unit))


def _sentence(version: str, what: str, why: tuple[str, ...]) -> str:
    return f"version {version} {what}: {'; '.join(why)}"
