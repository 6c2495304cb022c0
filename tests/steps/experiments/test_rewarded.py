"""The rewards of a bandit, out of real Delta tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perennial_steps.experiments.arms import Rewards
from perennial_steps.experiments.logs import opened
from perennial_steps.experiments.rewarded import Found, find
from perennial_steps.experiments.units import Question

MINUTE = timedelta(minutes=1)


@pytest.fixture
def ask(room, log, noon):
    """What the log says of challenger 2 and champion 1, ten hours after the bandit began."""

    def ask(**fields: Any) -> Found:
        log.write()
        asked = {"since": noon, "now": noon + timedelta(hours=10), "attribution": timedelta(hours=1), **fields}
        with opened(room.pipeline(), room.platform, "experiment") as connection:
            return find(connection, Question("2", "1", **asked))

    return ask


def test_rewards_are_counted_by_the_version_that_answered(log, ask, noon) -> None:
    for version, rewards in (("2", (1.0, 0.0, 1.0)), ("1", (0.5,))):
        for minute, reward in enumerate(rewards):
            log.reward(log.answer(None, version, noon + minute * MINUTE), reward, noon + 9 * MINUTE, version)
    found = ask().rewards
    assert (found.challenger.n, found.challenger.mean) == (3, pytest.approx(2 / 3))
    assert (found.champion.n, found.champion.mean) == (1, 0.5)
    assert (found.lowest, found.highest, found.are_rates) == (0.0, 1.0, True)


def test_the_last_reward_in_time_holds_and_answers_before_their_time_wait(log, ask, noon) -> None:
    ours = log.answer("ann", "2", noon)
    for minute, reward in ((1, 0.0), (2, 0.0), (59, -7.0), (61, 100.0)):
        log.reward(ours, reward, noon + minute * MINUTE, "2")
    late = noon + timedelta(hours=9, minutes=1)
    log.reward(log.answer("bob", "2", late), 1.0, late + MINUTE, "2")
    found = ask().rewards
    assert (found.challenger.n, found.challenger.mean, found.are_rates) == (1, -7.0, False)


def test_what_was_answered_before_or_by_others_is_not_of_the_experiment(log, ask, noon) -> None:
    log.reward(log.answer("a", "2", noon - timedelta(milliseconds=1)), 1.0, noon + MINUTE, "2")
    log.reward(log.answer("b", "3", noon), 1.0, noon + MINUTE, "3")
    log.reward(log.answer("c", "2", noon), 1.0, noon + MINUTE, None)  # of a version that no server knew
    assert ask() == Found((), Rewards())


def test_only_good_news_is_sent_and_the_rest_counts_as_zero(log, ask, noon) -> None:
    log.reward(log.answer("a", "2", noon), 1.0, noon + MINUTE, "2")
    log.answer("b", "2", noon)
    log.reward(log.answer("c", "2", noon), 1.0, noon + 61 * MINUTE, "2")
    log.answer("d", "2", noon, shadow=True)
    assert (ask().rewards.challenger.n, ask().rewards.challenger.mean) == (1, 1.0)
    found = ask(zero=True).rewards
    assert (found.challenger.n, found.challenger.mean) == (3, pytest.approx(1 / 3))


def test_before_anybody_has_written_anything_nothing_is_known(ask) -> None:
    assert ask() == ask(zero=True) == Found((), Rewards())
