"""What a bandit knows of two versions, the chance that one of them is the better, and how it keeps trying the other. Pure.

Thompson sampling (Thompson 1933; Russo et al., "A tutorial on Thompson sampling", 2018): a model server draws a plausible value of each
version from its arm, and the version with the higher draw answers. Rewards in [0, 1] make rates, with a uniform prior; what lies between
0 and 1 counts by its part, which errs on the side of caution (Agrawal and Goyal, "Analysis of Thompson sampling for the multi-armed bandit
problem", COLT 2012). All other rewards make means, whose draws are normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist

from perennial_spec.route import Arms, MeanArm, RateArm
from perennial_steps.experiments.moments import Moments

_POINTS = 4_000
"""Of the grid that two rates are compared on."""
_WIDE = 8.0
"""Standard deviations on each side that the grid reaches."""
_HALVINGS = 40


@dataclass(frozen=True)
class Rewards:
    """What came of the answers of both versions."""

    challenger: Moments = field(default_factory=Moments)
    champion: Moments = field(default_factory=Moments)
    lowest: float = 0.0
    """Of all rewards."""
    highest: float = 1.0

    @property
    def are_rates(self) -> bool:
        return self.lowest >= 0 and self.highest <= 1


Pair = tuple[RateArm, RateArm] | tuple[MeanArm, MeanArm]


def learned(rewards: Rewards) -> Pair | None:
    """The arms of challenger and champion; None while nothing can be said of their means: too few, or all alike."""
    ours, theirs = rewards.challenger, rewards.champion
    if not ours.n + theirs.n:
        return None
    if rewards.are_rates:
        return _rate(ours), _rate(theirs)
    if min(ours.n, theirs.n) < 2:
        return None
    both = math.sqrt((ours.squares + theirs.squares) / (ours.n + theirs.n - 2))
    return (_mean(ours, both), _mean(theirs, both)) if both else None


def chance_of_first(arms: Pair) -> float:
    """The probability that the first of two arms has the higher value."""
    one, other = arms
    if isinstance(one, MeanArm) and isinstance(other, MeanArm):
        return NormalDist().cdf((one.mean - other.mean) / math.hypot(_error(one), _error(other)))
    assert isinstance(one, RateArm)
    assert isinstance(other, RateArm)
    return _chance_of_rates(one, other)


def kept_open(arms: Pair, least: float) -> Pair:
    """Arms that know less, so that neither version gets less than `least` of the rows; the same ones where none does.

    What is known is thinned out by one factor for both, the smallest that does it: the version that looks better still gets the most.
    """
    if min(chance := chance_of_first(arms), 1 - chance) >= least:
        return arms
    one, other = arms
    if isinstance(one, MeanArm) and isinstance(other, MeanArm):
        wanted = NormalDist().inv_cdf(1 - least) * math.hypot(_error(one), _error(other))
        factor = abs(one.mean - other.mean) / wanted
        return _wider(one, factor), _wider(other, factor)
    assert isinstance(one, RateArm)
    assert isinstance(other, RateArm)
    enough, much = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (enough + much) / 2
        chance = _chance_of_rates(_thinner(one, middle), _thinner(other, middle))
        enough, much = (middle, much) if min(chance, 1 - chance) >= least else (enough, middle)
    return _thinner(one, enough), _thinner(other, enough)


def by_version(arms: Pair, challenger: str, champion: str) -> Arms:
    """The arms as a route has them."""
    one, other = arms
    if isinstance(one, MeanArm) and isinstance(other, MeanArm):
        return {champion: other, challenger: one}
    assert isinstance(one, RateArm)
    assert isinstance(other, RateArm)
    return {champion: other, challenger: one}


def _rate(of: Moments) -> RateArm:
    won = min(max(of.n * of.mean, 0.0), float(of.n))
    return RateArm(successes=won, failures=of.n - won)


def _mean(of: Moments, both: float) -> MeanArm:
    """With the deviation of both versions' rewards where its own are all alike."""
    return MeanArm(mean=of.mean, deviation=math.sqrt(of.variance) or both, count=of.n)


def _error(arm: MeanArm) -> float:
    return arm.deviation / math.sqrt(arm.count)


def _wider(arm: MeanArm, factor: float) -> MeanArm:
    return MeanArm(mean=arm.mean, deviation=arm.deviation * factor, count=arm.count)


def _thinner(arm: RateArm, factor: float) -> RateArm:
    return RateArm(successes=arm.successes * factor, failures=arm.failures * factor)


def _chance_of_rates(one: RateArm, other: RateArm) -> float:
    """P(X > Y) of two Beta posteriors, by their masses on a grid that reaches over both."""
    import numpy as np

    pairs = [(1 + arm.successes, 1 + arm.failures) for arm in (one, other)]
    means = [a / (a + b) for a, b in pairs]
    wide = [_WIDE * math.sqrt(a * b / (a + b + 1)) / (a + b) for a, b in pairs]
    low = max(0.0, min(mean - reach for mean, reach in zip(means, wide, strict=True)))
    high = min(1.0, max(mean + reach for mean, reach in zip(means, wide, strict=True)))
    points = low + (high - low) * (np.arange(_POINTS) + 0.5) / _POINTS
    masses = []
    for a, b in pairs:
        weight = (a - 1) * np.log(points) + (b - 1) * np.log1p(-points)
        mass = np.exp(weight - weight.max())
        masses.append(mass / mass.sum())
    below = np.cumsum(masses[1]) - masses[1] / 2
    return float(masses[0] @ below)
