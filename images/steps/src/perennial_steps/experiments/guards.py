"""The limits of `deployment.abort_on`, held against the challenger at each look of an experiment, whatever its rewards say.

An experiment is looked at a thousand times where a step of a canary is judged once, and must not be aborted by chance. So a limit counts
when it is broken over the last `bake` and over the one before as well; an error rate that is above it beyond doubt counts at once.
"""

from __future__ import annotations

from datetime import UTC, datetime

from perennial_spec import names
from perennial_spec.deployment import Deployment
from perennial_spec.errors import MonitoringError
from perennial_spec.step import Verdict
from perennial_steps import figures
from perennial_steps.analysis import Judgement, judge, judge_early
from perennial_steps.challenger import Contest
from perennial_steps.prometheus import Prometheus, quoted


def broken(prometheus: Prometheus, state: Contest, deployment: Deployment, began: float, now: float) -> str | None:
    """Which limits the challenger breaks, in words; None when it keeps them, or too few requests have come to tell.

    Args:
        began, now: Unix times by Prometheus' clock.

    Raises:
        MonitoringError: Prometheus is away, or does not know the challenger, or no longer.
    """
    name, version = state.challenger.name, state.challenger.version
    bake = deployment.bake.total_seconds()
    _need_known(prometheus, state, None)
    recent = figures.of_version(prometheus, name, version, max(began, now - bake), now)
    early = judge_early(recent, deployment) if recent.requests >= deployment.min_requests else None
    if early:
        return "; ".join(early.sentences)
    if now - began < 2 * bake:
        return None
    _need_known(prometheus, state, now - 2 * bake)
    judged = [_judged(prometheus, state, deployment, end - bake, end) for end in (now, now - bake)]
    if any(judgement.verdict is not Verdict.FAIL for judgement in judged):
        return None
    return "; ".join(judged[0].sentences)


def _need_known(prometheus: Prometheus, state: Contest, at: float | None) -> None:
    """No traffic and no scrape must not look alike, nor what a counter grew in the window and since it began."""
    name, version = state.challenger.name, state.challenger.version
    if not figures.is_watched(prometheus, name, version, at=at):
        moment = f" of {datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC" if at is not None else ""
        raise MonitoringError(
            f"Prometheus knows nothing of version {version} of {name!r}{moment}",
            where=f"{prometheus.url}: {names.MODEL_LOADED}{{pipeline={quoted(name)}}}",
            expected="series from the model servers over twice deployment.bake, for its limits",
            next="see that Prometheus scrapes the model servers: /targets; if it has lost its data, wait",
        )


def _judged(prometheus: Prometheus, state: Contest, deployment: Deployment, since: float, now: float) -> Judgement:
    name, champion = state.challenger.name, state.champion.version if state.champion else ""
    ours = figures.of_version(prometheus, name, state.challenger.version, since, now)
    return judge(ours, figures.of_version(prometheus, name, champion, since, now), deployment)
