"""One look at a bandit: rewards are read, the arms learn from them, and the chance that one version is the best is known."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from perennial_spec.deployment import Deployment
from perennial_spec.step import Verdict
from perennial_spec.units import format_duration, format_share
from perennial_steps.analysis import Judgement
from perennial_steps.experiments import arms, logs, rewarded
from perennial_steps.experiments.arms import Pair, Rewards
from perennial_steps.experiments.comparison import FEEDBACK
from perennial_steps.experiments.look import Asked, Look
from perennial_steps.experiments.moments import Moments
from perennial_steps.experiments.plots import draw_chances
from perennial_steps.experiments.units import Question


def look(asked: Asked) -> Look:
    """Learn from everything that has come by now.

    Raises:
        PlatformError: the store does not answer.
    """
    spec = asked.pipeline.spec
    experiment = spec.deployment.experiment
    question = Question(
        challenger=asked.challenger,
        champion=asked.champion,
        since=asked.since,
        now=asked.now,
        attribution=spec.experiment_attribution,
        zero=experiment.unrewarded == "zero",
    )
    with logs.opened(asked.pipeline, asked.platform, "experiment") as connection:
        found = rewarded.find(connection, question)
    known = arms.learned(found.rewards)
    chance = arms.chance_of_first(known) if known else 0.5
    shown = arms.kept_open(known, experiment.explore) if known else None
    judgement = judge(found.rewards, chance, spec.deployment, asked.now - asked.since)
    return Look(
        judgement,
        _figures(found.rewards, chance, shown),
        partial(draw_chances, found.history, found.rewards, experiment),
        arms.by_version(shown, asked.challenger, asked.champion) if shown else {},
    )


def judge(rewards: Rewards, chance: float, deployment: Deployment, age: timedelta) -> Judgement:
    """The verdict of one look at a bandit of that age, in which the challenger is the better version with that chance.

    The stopping rule: a version wins when the chance that it is the better one reaches `confidence`, with `min_count` rewards of each; the
    challenger not before `experiment_least`. That says what is known of the versions, given the prior, and is no bound on how often it is
    wrong: of two that are equally good one is taken in the end more often than not, which costs nothing.
    """
    experiment, least = deployment.experiment, deployment.experiment_least
    needed = f"{experiment.min_count} of each version are needed"
    counts = rewards.challenger.n, rewards.champion.n
    if not any(counts):
        return Judgement(Verdict.INCONCLUSIVE, (f"no reward has come in time: {FEEDBACK}; {needed}",))
    said = (
        f"reward {rewards.challenger.mean:.4g} against {rewards.champion.mean:.4g}, better with a chance of {chance:.1%}; "
        f"{counts[0]} and {counts[1]} rewards"
    )
    if min(counts) < experiment.min_count:
        return Judgement(Verdict.INCONCLUSIVE, (said, needed))
    if chance <= 1 - experiment.confidence:
        return Judgement(Verdict.FAIL, (said,))
    if chance < experiment.confidence:
        return Judgement(Verdict.INCONCLUSIVE, (f"{said}, {format_share(experiment.confidence)} is needed",))
    if age < least:
        return Judgement(Verdict.INCONCLUSIVE, (said, f"the experiment is younger than {format_duration(least)}"))
    return Judgement(Verdict.PASS, (said,))


def _figures(rewards: Rewards, chance: float, shown: Pair | None) -> dict[str, Any]:
    return {
        "challenger": _arm(rewards.challenger),
        "champion": _arm(rewards.champion),
        "probability_best": chance,
        "share": arms.chance_of_first(shown) if shown else 0.5,
    }


def _arm(of: Moments) -> dict[str, Any]:
    return {"n": of.n, "mean": of.mean if of.n else None}
