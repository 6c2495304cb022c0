"""What an A/B experiment has come to: figures in, verdict and sentences out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from perennial_spec.deployment import Deployment
from perennial_spec.experiment import Experiment
from perennial_spec.step import Verdict
from perennial_spec.units import format_duration, format_share
from perennial_steps.analysis import Judgement
from perennial_steps.experiments.moments import Moments
from perennial_steps.experiments.ratio import ALPHA, mismatch
from perennial_steps.experiments.sequence import Effect, effect
from perennial_steps.experiments.units import Found

MAX_MIXED = 0.05
"""Share of the entities that both versions answered, above which the assignment is not what it should be."""
FEEDBACK = "clients send them to /feedback"


@dataclass(frozen=True)
class Comparison:
    """One look."""

    judgement: Judgement
    """pass: the challenger wins; fail: the champion does; inconclusive: look again; error: the figures cannot be compared."""
    effect: Effect | None = None


def compare(found: Found, deployment: Deployment, age: timedelta) -> Comparison:
    """The verdict of one look at an experiment of that age.

    The stopping rule: the challenger wins at the first look at which the whole confidence sequence of its gain lies above `min_effect`, if
    the experiment is as old as `experiment_least`; the champion wins at the first at which it lies below. Because the sequence holds at all
    looks together, an equal challenger is taken for a better or worse one with a probability of at most 1 - `confidence`.
    """
    experiment = deployment.experiment
    if problem := _incomparable(found, experiment):
        return Comparison(Judgement(Verdict.ERROR, (problem,)))
    if few := _too_few(found, experiment):
        return Comparison(Judgement(Verdict.INCONCLUSIVE, (few,)))
    gain = effect(found.challenger, found.champion, experiment.confidence, experiment.planned)
    if gain is None or not gain.is_usable:
        why = f"{_counted(found, experiment)}: too few for values that differ so seldom or so much"
        return Comparison(Judgement(Verdict.INCONCLUSIVE, (why,)), gain)
    said = f"{_means(found, experiment)}, gain {in_words(gain, experiment)}; {_counted(found, experiment)}"
    return Comparison(_judged(gain, deployment, age, said), gain)


def in_words(gain: Effect, experiment: Experiment) -> str:
    """`0.0132 (0.0021 to 0.0243 at 95%)`"""
    return f"{gain.value:.3g} ({gain.low:.3g} to {gain.high:.3g} at {format_share(experiment.confidence)})"


def _judged(gain: Effect, deployment: Deployment, age: timedelta, said: str) -> Judgement:
    bound, least = deployment.experiment.min_effect, deployment.experiment_least
    if gain.high < bound:
        return Judgement(Verdict.FAIL, (f"the gain is below {bound:g} beyond chance", said))
    if gain.low <= bound:
        return Judgement(Verdict.INCONCLUSIVE, (f"the gain may be above or below {bound:g}", said))
    if age < least:
        early = f"the gain is above {bound:g}, and the experiment younger than {format_duration(least)}"
        return Judgement(Verdict.INCONCLUSIVE, (early, said))
    return Judgement(Verdict.PASS, (f"the gain is above {bound:g} beyond chance", said))


def _incomparable(found: Found, experiment: Experiment) -> str | None:
    ours, theirs = found.dealt
    share = experiment.share
    everybody = ours + theirs + found.mixed
    if everybody >= 2 * experiment.min_count and found.mixed > MAX_MIXED * everybody:
        return (
            f"{found.mixed} of {everybody} entities were answered by both versions: the assignment is not sticky, "
            "nothing can be compared"
        )
    chance = mismatch(ours, theirs, share)
    if chance >= ALPHA:
        return None
    return (
        f"sample ratio mismatch: the challenger answered {ours} entities, and the champion {theirs}, where {format_share(share)} and "
        f"{format_share(1 - share)} were to be expected (p = {chance:.1g}): something takes entities away from one, nothing can be compared"
    )


def _too_few(found: Found, experiment: Experiment) -> str | None:
    needed = f"{experiment.min_count} of each version are needed"
    if not sum(found.dealt):
        return f"no answer has been logged since it began; {needed}"
    counts = found.challenger.n, found.champion.n
    if not any(counts):
        return f"no {experiment.measure} has come in time for any of {sum(found.dealt)} entities: {FEEDBACK}; {needed}"
    return f"{_counted(found, experiment)}; {needed}" if min(counts) < experiment.min_count else None


def _counted(found: Found, experiment: Experiment) -> str:
    return f"{found.challenger.n} and {found.champion.n} entities with a {experiment.measure}"


def _means(found: Found, experiment: Experiment) -> str:
    ours, theirs = (_shown(of, experiment) for of in (found.challenger, found.champion))
    return f"{'reward' if experiment.measure == 'reward' else 'loss'} {ours:.4g} against {theirs:.4g}"


def _shown(of: Moments, experiment: Experiment) -> float:
    """The mean as people know it: a loss is a value with a minus inside."""
    return of.mean if experiment.measure == "reward" else -of.mean
