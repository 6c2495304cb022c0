"""What came of each entity, out of real Delta tables, held against a plain computation in Python."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from statistics import fmean, variance
from typing import Any

import pytest

from perennial_spec import logs
from perennial_steps.experiments.logs import opened
from perennial_steps.experiments.units import MARGIN, Found, Question, find

MINUTE = timedelta(minutes=1)


@pytest.fixture
def ask(room, log, noon):
    """What the log says of challenger 2 and champion 1, ten hours after the experiment began."""

    def ask(**fields: Any) -> Found:
        log.write()
        asked = {"since": noon, "now": noon + timedelta(hours=10), "attribution": timedelta(hours=1), **fields}
        with opened(room.pipeline(), room.platform, "experiment") as connection:
            return find(connection, Question("2", "1", **asked))

    return ask


def test_an_entity_is_one_value_however_often_it_asks(log, ask, noon) -> None:
    for minute, reward in enumerate((1.0, 0.0, 0.5)):
        log.reward(log.answer("ann", "2", noon + minute * MINUTE), reward, noon + 30 * MINUTE)
    log.reward(log.answer("bob", "2", noon), 1.0, noon + MINUTE)
    log.reward(log.answer("cid", "1", noon), 0.25, noon + MINUTE)
    found = ask()
    assert (found.challenger.n, found.challenger.mean) == (2, 0.75)
    assert (found.champion.n, found.champion.mean) == (1, 0.25)
    assert (found.dealt, found.mixed) == ((2, 1), 0)


def test_what_comes_later_than_the_time_of_attribution_does_not_count(log, ask, noon) -> None:
    first = log.answer("ann", "2", noon)
    log.reward(first, 0.0, noon + 59 * MINUTE)
    log.reward(first, 1.0, noon + 61 * MINUTE)  # a correction that came too late
    log.reward(log.answer("ann", "2", noon + 61 * MINUTE), 1.0, noon + 62 * MINUTE)
    assert ask().challenger.mean == 0.0
    assert ask(attribution=timedelta(hours=2)).challenger.mean == 1.0


def test_an_entity_is_not_looked_at_before_its_time_and_counts_as_dealt(log, ask, noon) -> None:
    now = noon + timedelta(hours=10)
    for name, made in (("ripe", now - 61 * MINUTE), ("green", now - 59 * MINUTE), ("edge", now - 60 * MINUTE)):
        log.reward(log.answer(name, "2", made), 1.0, made + MINUTE)
    assert MARGIN < MINUTE
    found = ask()
    assert (found.challenger.n, found.dealt) == (1, (3, 0))


def test_the_last_reward_of_an_answer_holds_and_a_repeated_one_counts_once(log, ask, noon) -> None:
    ours = log.answer("ann", "2", noon)
    for minute, reward in ((1, 0.0), (2, 0.0), (3, 0.8)):
        log.reward(ours, reward, noon + minute * MINUTE)
    assert ask().challenger.mean == 0.8


def test_an_answer_without_a_reward_is_skipped_or_counts_as_zero(log, ask, noon) -> None:
    log.reward(log.answer("ann", "2", noon), 1.0, noon + MINUTE)
    log.answer("ann", "2", noon + MINUTE)
    log.answer("bob", "2", noon)
    assert (ask().challenger.n, ask().challenger.mean) == (1, 1.0)
    found = ask(zero=True)
    assert (found.challenger.n, found.challenger.mean) == (2, 0.25)


def test_an_entity_of_both_versions_is_left_out(log, ask, noon) -> None:
    for version in ("1", "2"):
        log.reward(log.answer("tester", version, noon + int(version) * MINUTE), 1.0, noon + 3 * MINUTE)
    log.reward(log.answer("ann", "2", noon), 0.5, noon + MINUTE)
    found = ask()
    assert (found.mixed, found.dealt, found.champion.n, found.challenger.mean) == (1, (1, 0), 0, 0.5)


def test_shadows_other_versions_and_what_was_before_are_not_of_the_experiment(log, ask, noon) -> None:
    log.reward(log.answer("a", "2", noon - MINUTE), 1.0, noon + MINUTE)
    log.reward(log.answer("b", "3", noon), 1.0, noon + MINUTE)
    log.reward(log.answer("c", "2", noon, shadow=True), 1.0, noon + MINUTE)
    found = ask()
    assert (found.history, found.dealt, found.mixed) == ((), (0, 0), 0)


def test_requests_without_an_entity_are_units_of_their_own(log, ask, noon) -> None:
    for reward in (0.0, 1.0):
        log.reward(log.answer(None, "2", noon), reward, noon + MINUTE)
    found = ask()
    assert (found.challenger.n, found.challenger.mean) == (2, 0.5)


def test_before_anybody_has_written_anything_nothing_is_known(ask) -> None:
    assert ask() == Found((), (0, 0), 0)
    assert ask(loss="brier") == Found((), (0, 0), 0)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("brier", -0.16), ("log_loss", -0.5108256), ("absolute", -0.4), ("squared", -0.16)],
)
def test_the_loss_on_labels_is_a_value_of_which_more_is_better(log, ask, noon, loss, expected) -> None:
    log.answer("ann", "2", noon, score=0.6)
    log.label(0.0, noon + MINUTE, entity="ann")
    log.label(1.0, noon + 2 * MINUTE, entity="ann")  # corrected
    assert ask(loss=loss).challenger.mean == pytest.approx(expected)


def test_an_entitys_label_is_of_its_newest_answer_and_an_answers_own_goes_before(log, ask, noon) -> None:
    log.answer("ann", "2", noon, score=0.9)
    log.answer("ann", "2", noon + MINUTE, score=0.6)
    log.label(1.0, noon + 2 * MINUTE, entity="ann")
    own = log.answer("bob", "1", noon, score=0.6)
    log.label(1.0, noon + 3 * MINUTE, entity="bob")
    log.label(0.0, noon + 2 * MINUTE, prediction_id=own)
    log.answer("cid", "1", noon, score=None)
    log.label(1.0, noon + MINUTE, entity="cid")
    found = ask(loss="absolute")
    assert found.challenger.mean == pytest.approx(-0.4)
    assert (found.champion.n, found.champion.mean) == (1, pytest.approx(-0.6))


def test_a_table_of_an_older_server_lacks_a_column(log, ask, noon) -> None:
    log.label(1.0, noon + MINUTE, entity="ann")
    log.write(without=logs.PREDICTION_ID)
    log.answer("ann", "2", noon, score=0.6)
    assert ask(loss="absolute").challenger.mean == pytest.approx(-0.4)


def test_everything_together_is_what_a_plain_computation_says(log, ask, noon) -> None:
    rng = random.Random(5)
    answers: list[tuple[str, str, datetime, str]] = []
    rewards: list[tuple[str, float, datetime]] = []
    for number in range(3_000):
        entity = f"e{rng.randrange(400)}"
        version = "12"[hash_of(entity)] if rng.random() > 0.02 else rng.choice("12")
        made = noon + timedelta(seconds=rng.randrange(36_000))
        answers.append((entity, version, made, log.answer(entity, version, made)))
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = made + timedelta(seconds=rng.randrange(7_200), microseconds=number)
            rewards.append((answers[-1][3], rng.random(), at))
            log.reward(*rewards[-1])
    found = ask()
    expected: dict[str, list[float]] = {"1": [], "2": []}
    mixed = 0
    for entity in {answer[0] for answer in answers}:
        mine = sorted((a for a in answers if a[0] == entity), key=lambda a: a[2])
        due = mine[0][2] + timedelta(hours=1)
        mine = [a for a in mine if a[2] <= due]
        if len({a[1] for a in mine}) > 1:
            mixed += 1
        elif due <= noon + timedelta(hours=10) - MARGIN:
            last = {r[0]: r[1] for r in sorted(rewards, key=lambda r: r[2]) if r[2] <= due}
            values = [last[a[3]] for a in mine if a[3] in last]
            expected[mine[0][1]] += [fmean(values)] if values else []
    assert found.mixed == mixed > 0
    assert len(found.history) > 20
    assert [stage.over for stage in found.history] == sorted(stage.over for stage in found.history)
    for moments, values in ((found.challenger, expected["2"]), (found.champion, expected["1"])):
        mean = fmean(values)
        assert (moments.n, moments.mean) == (len(values), pytest.approx(mean))
        assert moments.variance == pytest.approx(variance(values))
        assert moments.cubes == pytest.approx(sum((value - mean) ** 3 for value in values))


def hash_of(entity: str) -> int:
    return int(entity[1:]) * 7 % 13 % 2
