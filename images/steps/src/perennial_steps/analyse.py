"""analyse: watches a step of the rollout for as long as the spec says, then judges it.

Nothing is written: it can be killed at any point and run again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.deployment import Deployment
from perennial_spec.errors import MonitoringError
from perennial_spec.route import split
from perennial_spec.step import Verdict
from perennial_spec.units import format_duration, format_share
from perennial_steps import figures
from perennial_steps.analysis import Figures, Judgement, judge, judge_early
from perennial_steps.challenger import Contest, contest, no, share_of
from perennial_steps.context import Outcome, StepContext
from perennial_steps.prometheus import Prometheus, quoted

log = logging.getLogger(__name__)

LOOKS = 20
"""How often the figures are looked at within `bake`, within the bounds below."""
SHORTEST_LOOK, LONGEST_LOOK = 0.5, 15.0
"""Seconds between two looks."""
SAY_EVERY = 5.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class Watched:
    """The last look at both versions, and what it was judged to be."""

    challenger: Figures
    champion: Figures
    judgement: Judgement


def run(context: StepContext) -> Outcome:
    """Judge the challenger at the parameter `share`.

    Raises:
        MonitoringError: Prometheus is away or knows nothing of the version. The rollout is held, never promoted.
        RegistryError: the registry is away.
    """
    share = share_of(context)
    deployment = context.pipeline.spec.deployment
    with Registry(context.platform.need("mlflow_url")) as registry:
        state = contest(context, registry)
        version = state.challenger.version
        if state.champion is None or state.is_won:
            return _nobody_to_fall_back_to(state, share)
        if moved := _moved(context, registry, version, share):
            return no(moved, version, share=share, reason=moved)
        with Prometheus(context.platform.need("prometheus_url")) as prometheus:
            watched = _watch(context, prometheus, state, deployment)
        if moved := _moved(context, registry, version, share):
            return no(moved, version, share=share, reason=moved)
    return _outcome(watched, state, share, deployment)


def _nobody_to_fall_back_to(state: Contest, share: float) -> Outcome:
    version = state.challenger.version
    why = "it is champion already" if state.is_won else "there is no champion to fall back to"
    return Outcome(f"version {version} is not judged: {why}", {"model_version": version, "share": share})


def _moved(context: StepContext, registry: Registry, version: str, share: float) -> str | None:
    """Why the figures would not be about this step of the rollout, or None."""
    route = registry.route(context.pipeline.name)
    if abs(route.weights.get(version, 0.0) - share) < 1e-9:
        return None
    return (
        f"version {version} should have {format_share(share)} of the traffic, but {route.changed_by or 'somebody'} "
        f"made it {split(route)} (revision {route.revision})"
    )


def _watch(context: StepContext, prometheus: Prometheus, state: Contest, deployment: Deployment) -> Watched:
    name, version = context.pipeline.name, state.challenger.version
    champion = state.champion.version if state.champion else ""
    bake, longest = deployment.bake.total_seconds(), max(deployment.bake, deployment.max_bake).total_seconds()
    pause = min(max(bake / LOOKS, SHORTEST_LOOK), LONGEST_LOOK)
    log.info("watching version %s for %s", version, format_duration(deployment.bake))
    since, start, said = prometheus.now(), time.monotonic(), 0.0
    while True:
        elapsed = time.monotonic() - start
        time.sleep(min(pause, max(bake - elapsed, SHORTEST_LOOK)))
        elapsed, now = time.monotonic() - start, prometheus.now()
        ours = figures.of_version(prometheus, name, version, since, now)
        theirs = figures.of_version(prometheus, name, champion, since, now)
        early = judge_early(ours, deployment) if ours.requests >= deployment.min_requests else None
        if early:
            return Watched(ours, theirs, early)
        if elapsed - said >= SAY_EVERY:
            said = elapsed
            log.info("%3.0f s: %s; champion %s", elapsed, _said(ours), _said(theirs))
        if elapsed < bake:
            continue
        _need_watched(prometheus, name, version)
        judgement = judge(ours, theirs, deployment)
        if judgement.verdict is not Verdict.INCONCLUSIVE or elapsed >= longest:
            return Watched(ours, theirs, judgement)


def _need_watched(prometheus: Prometheus, pipeline: str, version: str) -> None:
    if not figures.is_watched(prometheus, pipeline, version):
        raise MonitoringError(
            f"Prometheus knows nothing of version {version} of {pipeline!r}",
            where=f"{prometheus.url}: {names.MODEL_LOADED}{{pipeline={quoted(pipeline)}}}",
            expected="series from the model servers: no traffic and no scrape must not look alike",
            next="see that Prometheus scrapes the model servers: /targets",
        )


def _outcome(watched: Watched, state: Contest, share: float, deployment: Deployment) -> Outcome:
    version, judgement = state.challenger.version, watched.judgement
    text = "; ".join(judgement.sentences)
    at = f"version {version} at {format_share(share)}"
    outputs = {"model_version": version, "share": share, **_figures(watched.challenger)}
    metrics = {
        **{key: value for key, value in _figures(watched.challenger).items() if value is not None},
        **{f"champion_{key}": value for key, value in _figures(watched.champion).items() if value is not None},
    }
    verdict = judgement.verdict
    if verdict is Verdict.INCONCLUSIVE:
        text += f" after {format_duration(max(deployment.bake, deployment.max_bake))}"
        if deployment.on_inconclusive == "continue":
            return Outcome(f"{at} goes on, as on_inconclusive says: {text}", outputs, metrics)
    if verdict is Verdict.PASS:
        return Outcome(f"{at} holds: {text}" if text else f"{at} holds", outputs, metrics)
    summary = f"{at} {'fails' if verdict is Verdict.FAIL else 'is inconclusive'}: {text}"
    failure = f"{summary}. Challenger: {_said(watched.challenger)}. Champion: {_said(watched.champion)}."
    return Outcome(summary, {**outputs, "reason": summary}, metrics, verdict, failure)


def _figures(of: Figures) -> dict[str, Any]:
    return {
        "requests": of.requests,
        "error_rate": of.error_rate,
        "latency_p99": of.latency_p99,
        "prediction_psi": of.prediction_psi,
    }


def _said(of: Figures) -> str:
    parts = [f"{of.requests:.0f} requests"]
    if of.error_rate is not None:
        parts.append(f"errors {of.error_rate * 100:.2g}%")
    if of.latency_p99 is not None:
        parts.append(f"p99 {of.latency_p99 * 1000:.3g} ms")
    if of.prediction_psi is not None:
        parts.append(f"prediction PSI {of.prediction_psi:.2f}")
    return ", ".join(parts)
