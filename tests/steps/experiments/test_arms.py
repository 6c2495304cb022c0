"""A bandit's arms: what they say of two versions, and that a server which draws from them finds the better one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perennial_serving.assignment import Bandit
from perennial_spec.route import MeanArm, RateArm, Route
from perennial_steps.experiments.arms import Rewards, by_version, chance_of_first, kept_open, learned
from perennial_steps.experiments.moments import Moments


def rates(won: int, of: int) -> Moments:
    return Moments(of, won / of, won * (of - won) / of)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((3, 10), (5, 10)),
        ((30, 1_000), (20, 1_000)),
        ((0, 5), (0, 900)),
        ((50_000, 100_000), (3, 7)),
        ((999, 1_000), (990, 1_000)),
    ],
)
def test_the_chance_of_a_rate_is_that_of_many_draws(one: tuple[int, int], other: tuple[int, int]) -> None:
    arms = learned(Rewards(rates(*one), rates(*other)))
    assert arms is not None
    assert isinstance(arms[0], RateArm)
    assert (arms[0].successes, arms[0].failures) == pytest.approx((one[0], one[1] - one[0]))
    rng = np.random.default_rng(2)
    draws = [rng.beta(1 + won, 1 + of - won, 1_000_000) for won, of in (one, other)]
    assert chance_of_first(arms) == pytest.approx((draws[0] > draws[1]).mean(), abs=0.002)


def test_other_rewards_make_means() -> None:
    arms = learned(Rewards(Moments(100, 5.0, 396.0), Moments(400, 4.0, 1_596.0), -3.0, 20.0))
    assert arms == (MeanArm(mean=5, deviation=2, count=100), MeanArm(mean=4, deviation=2, count=400))
    assert chance_of_first(arms) == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(0.04 + 0.01) / math.sqrt(2))))


def test_a_version_whose_rewards_are_all_alike_takes_the_others_deviation() -> None:
    arms = learned(Rewards(Moments(50, 5.0), Moments(50, 4.0, 98.0), 4.0, 6.0))
    assert arms is not None
    assert isinstance(arms[0], MeanArm)
    assert arms[0].deviation == pytest.approx(1.0)
    for few in (
        Rewards(Moments(1, 5.0), Moments(50, 4.0, 98.0), 0, 6),
        Rewards(Moments(9, 5.0), Moments(9, 5.0), 5, 5),
    ):
        assert learned(few) is None


@pytest.mark.parametrize(
    "rewards",
    [
        Rewards(rates(900, 1_000), rates(100, 1_000)),
        Rewards(rates(2, 1_000), rates(60, 1_000)),
        Rewards(Moments(1_000, 5.0, 999.0), Moments(50, 4.0, 49.0), -9.0, 9.0),
    ],
)
def test_a_version_that_looks_bad_keeps_the_share_that_is_asked_for_and_no_more(rewards: Rewards) -> None:
    arms = learned(rewards)
    assert arms is not None
    for least in (0.01, 0.1, 0.4):
        assert min(chance_of_first(arms), 1 - chance_of_first(arms)) < least
        opened = kept_open(arms, least)
        route = Route(weights={"1": 0.5, "2": 0.5}).with_arms(by_version(opened, "2", "1"), "x")
        chosen = Bandit(route, seed=1).choose(100_000)
        share = chosen.count("2" if chance_of_first(arms) < 0.5 else "1") / len(chosen)
        assert share == pytest.approx(least, abs=0.006)
    assert kept_open(arms, 0.0) is arms


@pytest.mark.parametrize("explore", [0.0, 0.1])
def test_a_server_that_draws_from_what_is_learned_gives_the_better_version_the_most(explore: float) -> None:
    rng = np.random.default_rng(4)
    truth = {"1": 0.10, "2": 0.15}
    won, asked = {"1": 0, "2": 0}, {"1": 0, "2": 0}
    route = Route(weights={"1": 0.5, "2": 0.5}).with_arms({}, "x")
    shares, arms = [], None
    for look in range(60):
        chosen = Bandit(route, seed=look).choose(200)
        for version, rate in truth.items():
            rows = chosen.count(version)
            asked[version] += rows
            won[version] += int(rng.binomial(rows, rate))
        shares.append(chosen.count("2") / 200)
        arms = learned(Rewards(rates(won["2"], asked["2"]), rates(won["1"], asked["1"])))
        assert arms is not None
        route = route.with_arms(by_version(kept_open(arms, explore), "2", "1"), "x")
    assert route.revision == 61
    assert np.mean(shares[:2]) < 0.7
    assert np.mean(shares[-20:]) == pytest.approx(1 - explore, abs=0.03)
    assert asked["1"] < 0.3 * 12_000  # half of the rows were the price of an A/B experiment
