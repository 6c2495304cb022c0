"""analyse: one look at a step of the rollout: what the figures say since it began, and whether that is an answer yet.

It is looked at again until it is (`perennial_spec.step`, `pace`): a disaster ends it at any look, everything else is judged after `bake`.
While Prometheus or the registry is away the step is held: nobody knows how the challenger does, so that nothing is promoted nor taken back.
Nothing is written: it can be killed at any point and run again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.deployment import Deployment
from perennial_spec.errors import MonitoringError, PerennialError, RegistryError
from perennial_spec.route import Route, split
from perennial_spec.step import Verdict
from perennial_spec.units import format_duration, format_share
from perennial_steps import figures, pace
from perennial_steps.analysis import Figures, Judgement, judge, judge_early
from perennial_steps.challenger import Contest, again, contest, no, share_of
from perennial_steps.context import Outcome, StepContext
from perennial_steps.prometheus import Prometheus, quoted
from perennial_steps.shift import shift

log = logging.getLogger(__name__)

LATE = 60.0
"""Seconds by which a look may be late without a reason: Airflow is busy, or was just restarted."""
SAY_EVERY = 5.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class Watch:
    """What a look tells the next one."""

    revision: int | None = None
    """Of the route whose traffic is watched. Another revision is another watch."""
    since: float | None = None
    """Unix seconds by Prometheus' clock: it knew the version then. None before the first figures."""
    held_since: float | None = None
    """Unix seconds by this machine's clock, while there are no figures."""
    lost: float = 0.0
    """Seconds without figures before."""
    looked: float | None = None
    """Unix seconds by Prometheus' clock of the last look that had figures."""
    wait: float = 0.0
    """Seconds that it wanted until this one."""
    unseen: float = 0.0
    """Seconds since `since` in which there should have been looks: the step was held, or the whole platform was down."""
    said: float = 0.0
    """Seconds after `since` of the last line of progress."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Watch:
        return cls(**{each.name: state[each.name] for each in fields(cls) if each.name in state})

    def held(self, now: float) -> float:
        """Seconds without figures, in all, up to `now` by this machine's clock."""
        return self.lost + (max(0.0, now - self.held_since) if self.held_since is not None else 0.0)


@dataclass(frozen=True)
class Sight:
    """What one look saw."""

    watch: Watch
    elapsed: float
    """Seconds by Prometheus' clock since the watch began."""
    challenger: Figures
    champion: Figures


def run(context: StepContext) -> Outcome:
    """Look at the challenger at the parameter `share`: pass, fail, inconclusive, or pending.

    Raises:
        PlatformError: it was not told where the registry or Prometheus is.
    """
    share = share_of(context)
    watch = Watch.of(context.request.state)
    try:
        return _look(context, share, watch)
    except (MonitoringError, RegistryError) as error:
        return _held(context, share, watch, error)


def _look(context: StepContext, share: float, watch: Watch) -> Outcome:
    with Registry(context.platform.need("mlflow_url")) as registry:
        state = contest(context, registry)
        version = state.challenger.version
        if state.champion is None or state.is_won:
            return _nobody_to_fall_back_to(state, share)
        if state.is_outdated:
            return again(state, "deploy", share)
        route = state.route
        if moved := _moved(route, version, share):
            return no(moved, version, share=share, reason=moved)
        if watch.revision not in {None, route.revision}:
            watch = Watch()
        with Prometheus(context.platform.need("prometheus_url")) as prometheus:
            sight = _see(context, prometheus, state, replace(watch, revision=route.revision), share)
        if moved := _moved(registry.route(context.pipeline.name), version, share):
            return no(moved, version, share=share, reason=moved)
    return _judged(context, sight, state, share)


def _nobody_to_fall_back_to(state: Contest, share: float) -> Outcome:
    version = state.challenger.version
    why = "it is champion already" if state.is_won else "there is no champion to fall back to"
    return Outcome(f"version {version} is not judged: {why}", {"model_version": version, "share": share})


def _moved(route: Route, version: str, share: float) -> str | None:
    """Why the figures would not be about this step of the rollout, or None."""
    if abs(route.weights.get(version, 0.0) - share) < 1e-9:
        return None
    return (
        f"version {version} should have {format_share(share)} of the traffic, but {route.changed_by or 'somebody'} "
        f"made it {split(route)} (revision {route.revision})"
    )


def _see(context: StepContext, prometheus: Prometheus, state: Contest, watch: Watch, share: float) -> Sight:
    """The figures of both versions since the watch began; of a champion without traffic, of as long a time before that."""
    name, version = context.pipeline.name, state.challenger.version
    champion = state.champion.version if state.champion else ""
    wanted = context.pipeline.spec.monitoring.quality
    now = prometheus.now()
    if not figures.is_watched(prometheus, name, version):
        raise _unknown(prometheus, name, version)
    watch = _begun(prometheus, name, version, watch, now)
    since = watch.since if watch.since is not None else now
    metric = wanted.metric if wanted else None
    ours = figures.of_version(prometheus, name, version, since, now, metric=metric)
    begin, end = (2 * since - now, since) if share == 1 else (since, now)
    theirs = figures.of_version(prometheus, name, champion, begin, end, metric=metric)
    return Sight(watch, now - since, ours, theirs)


def _begun(prometheus: Prometheus, name: str, version: str, watch: Watch, now: float) -> Watch:
    """The watch with a beginning that Prometheus knows: where it does not, counters would be taken for what they grew since."""
    back = replace(watch, held_since=None, lost=watch.held(time.time()))
    if watch.since is None:
        log.info("the watch of version %s begins", version)
        return replace(back, since=now, looked=now)
    if figures.is_watched(prometheus, name, version, at=watch.since):
        late = max(0.0, now - (watch.looked or now) - watch.wait - LATE)
        return replace(back, looked=now, unseen=watch.unseen + late)
    gone = now - watch.since
    log.warning(
        "Prometheus has lost what it saw of version %s in the last %.0f s: the watch begins anew", version, gone
    )
    return replace(back, since=now, looked=now, lost=watch.lost + gone, unseen=0.0, said=0.0)


def _unknown(prometheus: Prometheus, pipeline: str, version: str) -> MonitoringError:
    return MonitoringError(
        f"Prometheus knows nothing of version {version} of {pipeline!r}",
        where=f"{prometheus.url}: {names.MODEL_LOADED}{{pipeline={quoted(pipeline)}}}",
        expected="series from the model servers: no traffic and no scrape must not look alike",
        next="see that Prometheus scrapes the model servers: /targets",
    )


def _held(context: StepContext, share: float, watch: Watch, error: PerennialError) -> Outcome:
    """Nothing is known: the share stays, until that has lasted for `max_hold`."""
    deployment = context.pipeline.spec.deployment
    version, now = str(context.input("train", "model_version")), time.time()
    watch = watch if watch.held_since is not None else replace(watch, held_since=now)
    held, current = watch.held(now), now - (watch.held_since or now)
    outputs = {"model_version": version, "share": share, "standing": Verdict.ERROR, "held_seconds": round(held, 1)}
    if held >= deployment.max_hold.total_seconds():
        summary = f"version {version} at {format_share(share)} was without figures for {format_duration(deployment.max_hold)}: {error.what}"
        return Outcome(summary, {**outputs, "reason": summary}, verdict=Verdict.FAIL, failure=f"{summary}\n{error}")
    log.warning("held for %.0f s: %s", held, error)
    left = deployment.max_hold.total_seconds() - held
    return Outcome(
        f"version {version} at {format_share(share)} is held: {error.what}",
        outputs,
        verdict=Verdict.PENDING,
        again_after=min(pace.until_asked_again(current), left),
        state=asdict(watch),
    )


def _judged(context: StepContext, sight: Sight, state: Contest, share: float) -> Outcome:
    deployment = context.pipeline.spec.deployment
    bake, longest = deployment.bake.total_seconds(), max(deployment.bake, deployment.max_bake).total_seconds()
    early = judge_early(sight.challenger, deployment) if sight.challenger.requests >= deployment.min_requests else None
    judgement = early or judge(sight.challenger, sight.champion, deployment, context.pipeline.spec.monitoring.quality)
    # Time that nobody saw may count for `bake`, the counters went on; that it was too little to judge does not follow from it.
    undecided = judgement.verdict is Verdict.INCONCLUSIVE and sight.elapsed - sight.watch.unseen < longest
    if early or (sight.elapsed >= bake and not undecided):
        return _answer(sight, judgement, state, share, deployment)
    return _pending(sight, judgement, state, share, pace.until_next(sight.elapsed, bake, longest + sight.watch.unseen))


def _pending(sight: Sight, judgement: Judgement, state: Contest, share: float, wait: float) -> Outcome:
    watch, version = replace(sight.watch, wait=wait), state.challenger.version
    said = f"{_said(sight.challenger)}; champion {_said(sight.champion)}"
    if sight.elapsed - watch.said >= SAY_EVERY:
        watch = replace(watch, said=sight.elapsed)
        log.info("%3.0f s: %s", sight.elapsed, said)
    return Outcome(
        f"version {version} at {format_share(share)} is watched for {sight.elapsed:.0f} s: {said}",
        _outputs(sight, version, share, judgement.verdict),
        _metrics(sight),
        Verdict.PENDING,
        again_after=wait,
        state=asdict(watch),
    )


def _answer(sight: Sight, judgement: Judgement, state: Contest, share: float, deployment: Deployment) -> Outcome:
    version, verdict = state.challenger.version, judgement.verdict
    text, at = "; ".join(judgement.sentences), f"version {version} at {format_share(share)}"
    outputs, metrics = _outputs(sight, version, share, verdict), _metrics(sight)
    if verdict is Verdict.INCONCLUSIVE:
        text += f" after {format_duration(max(deployment.bake, deployment.max_bake))}"
        if deployment.on_inconclusive == "continue":
            return Outcome(f"{at} goes on, as on_inconclusive says: {text}", outputs, metrics)
    if verdict is Verdict.PASS:
        return Outcome(f"{at} holds: {text}" if text else f"{at} holds", outputs, metrics)
    summary = f"{at} {'fails' if verdict is Verdict.FAIL else 'is inconclusive'}: {text}"
    failure = f"{summary}. Challenger: {_said(sight.challenger)}. Champion: {_said(sight.champion)}."
    return Outcome(summary, {**outputs, "reason": summary}, metrics, verdict, failure)


def _outputs(sight: Sight, version: str, share: float, standing: Verdict) -> dict[str, Any]:
    """As `perennial_spec.step` lists them, of every look."""
    watched = {"watched_seconds": round(sight.elapsed, 1), "held_seconds": round(sight.watch.lost, 1)}
    apart = shift(sight.challenger.predictions.live, sight.champion.predictions.live)
    figures = {**_figures(sight.challenger), "prediction_shift": apart}
    return {"model_version": version, "share": share, "standing": standing, **watched, **figures}


def _metrics(sight: Sight) -> dict[str, float]:
    both = {
        **_figures(sight.challenger),
        **{f"champion_{key}": value for key, value in _figures(sight.champion).items()},
    }
    return {key: value for key, value in both.items() if value is not None}


def _figures(of: Figures) -> dict[str, float | None]:
    return {
        "requests": of.requests,
        "error_rate": of.error_rate,
        "latency_p99": of.latency_p99,
        "prediction_psi": of.prediction_psi,
        "quality": of.quality.value if of.quality else None,
    }


def _said(of: Figures) -> str:
    parts = [f"{of.requests:.0f} requests"]
    if of.error_rate is not None:
        parts.append(f"errors {of.error_rate * 100:.2g}%")
    if of.latency_p99 is not None:
        parts.append(f"p99 {of.latency_p99 * 1000:.3g} ms")
    if of.prediction_psi is not None:
        parts.append(f"prediction PSI {of.prediction_psi:.2f}")
    if of.quality is not None:
        parts.append(f"quality {of.quality}")
    return ", ".join(parts)
