"""How far apart the looks of a watch are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_spec.pipeline import SHORT_WAITS
from perennial_steps import pace
from perennial_steps.runner import SHORT_WAIT

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
SECONDS = st.floats(0.001, 30 * DAY)


def waits(bake: float, longest: float) -> Iterator[float]:
    """Of a watch that is only decided at its very end."""
    elapsed = 0.0
    while elapsed < longest:
        wait = pace.until_next(elapsed, bake, longest)
        yield wait
        elapsed += wait


@pytest.mark.parametrize("bake", [1.5, 20.0, 2 * MINUTE])
def test_a_short_bake_is_one_process(bake: float) -> None:
    assert max(waits(bake, bake)) < SHORT_WAIT


def test_a_canary_of_three_days_is_a_look_every_five_minutes() -> None:
    found = list(waits(3 * DAY, 3 * DAY))
    assert 3 * 288 < len(found) < 3 * 288 + 50
    assert max(found) == 5 * MINUTE


def test_ten_minutes_are_looked_at_closely_at_first_and_then_by_the_minute() -> None:
    found = list(waits(10 * MINUTE, 10 * MINUTE))
    assert found[:3] == [0.5, 0.5, 0.5]
    lone = [wait for wait in found if wait >= SHORT_WAIT]
    assert 8 <= len(lone) <= 10
    assert all(wait == MINUTE for wait in lone[:-1])


@given(SECONDS, st.floats(1, 10))
def test_short_waits_are_over_before_the_timeout_of_one_look(bake: float, more: float) -> None:
    together, longest = 0.0, 0.0
    for wait in waits(min(bake, 4 * HOUR), min(bake, 4 * HOUR) * more):
        together = together + wait if wait < SHORT_WAIT else 0.0
        longest = max(longest, together)
    assert longest < SHORT_WAITS.total_seconds()


@given(SECONDS, SECONDS, SECONDS)
def test_no_look_is_missed_at_the_moments_of_judgement(elapsed: float, bake: float, more: float) -> None:
    wait = pace.until_next(elapsed, bake, bake + more)
    assert pace.SHORTEST <= wait <= pace.LONGEST
    for end in (bake, bake + more):
        if elapsed < end:
            assert elapsed + wait <= end + pace.SHORTEST + 1e-6
            break


def test_a_held_watch_asks_soon_and_then_seldom() -> None:
    assert pace.until_asked_again(0) == 0.5
    assert pace.until_asked_again(30) == 7.5
    assert pace.until_asked_again(50) == MINUTE
    assert pace.until_asked_again(HOUR) == 5 * MINUTE
