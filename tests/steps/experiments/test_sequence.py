"""The confidence sequence, held against many simulated experiments that are looked at all the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from perennial_steps.experiments.moments import Moments
from perennial_steps.experiments.sequence import Effect, effect, tuned

Floats = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

NORMAL: Draw = lambda rng, size: rng.normal(3, 2, size)  # noqa: E731
RARE: Draw = lambda rng, size: (rng.random(size) < 0.02).astype(np.float64)  # noqa: E731
SKEWED: Draw = lambda rng, size: rng.lognormal(0, 1.5, size)  # noqa: E731


def looks(rng: np.random.Generator, draw: Draw, share: float, gain: float) -> Iterator[Effect]:
    """One experiment of 10,000 entities that come one by one, looked at after each 100 of them."""
    ours = rng.random(10_000) < share
    values = draw(rng, (10_000,)) + gain * ours
    both = {True: Moments(), False: Moments()}
    for start in range(0, 10_000, 100):
        part, mine = values[start : start + 100], ours[start : start + 100]
        for arm in both:
            both[arm] += moments(part[mine == arm])
        if min(found.n for found in both.values()) >= 100:
            at = effect(both[True], both[False], 0.95, 10_000)
            assert at is not None
            yield at


def moments(values: Floats) -> Moments:
    apart = values - values.mean() if len(values) else values
    mean = float(values.mean()) if len(values) else 0.0
    return Moments(len(values), mean, float((apart**2).sum()), float((apart**3).sum()))


def ends(experiments: int, draw: Draw, share: float, gain: float = 0.0) -> list[float]:
    """What each experiment that stopped by itself found: it stops at the first look whose interval is all on one side of 0."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(experiments):
        stop = next((at for at in looks(rng, draw, share, gain) if at.is_usable and not at.low <= 0 <= at.high), None)
        if stop:
            found.append(stop.value)
    return found


@pytest.mark.parametrize(("draw", "share"), [(NORMAL, 0.5), (RARE, 0.5), (SKEWED, 0.5), (RARE, 0.1), (SKEWED, 0.1)])
def test_equal_versions_are_told_apart_no_more_often_than_alpha_for_all_looks_together(
    draw: Draw, share: float
) -> None:
    assert len(ends(2_000 if draw is NORMAL else 500, draw, share)) <= 0.05 * (2_000 if draw is NORMAL else 500)


@pytest.mark.parametrize("gain", [0.2, -0.2])  # a tenth of the standard deviation
def test_a_difference_is_found_with_its_sign(gain: float) -> None:
    found = ends(200, NORMAL, 0.5, gain)
    assert len(found) >= 0.95 * 200
    assert all(value * gain > 0 for value in found)


def test_the_interval_of_one_look_is_wider_than_that_of_a_test_that_is_made_once() -> None:
    one, other = Moments(5_000, 1.0, 5_000.0), Moments(5_000, 0.9, 5_000.0)
    found = effect(one, other, 0.95, 10_000)
    assert found is not None
    assert found.value == pytest.approx(0.1)
    once = 1.96 * np.sqrt(2 / 5_000)
    assert 1.4 * once < found.high - found.value < 1.8 * once


def test_the_interval_is_the_narrowest_where_it_was_planned_to_be() -> None:
    each = Moments(5_000, 0.0, 5_000.0)
    widths = {}
    for planned in (1_000, 5_000, 10_000, 20_000, 100_000):
        found = effect(each, each, 0.95, planned)
        assert found is not None
        widths[planned] = found.high - found.low
    assert min(widths, key=widths.__getitem__) == 10_000
    u = tuned(0.05)
    assert u + 1 - np.log(u + 1) == pytest.approx(1 + 2 * np.log(20))


def test_values_that_never_differ_and_too_few_prove_nothing() -> None:
    same = effect(Moments(500, 1.0), Moments(500, 1.0), 0.95, 10_000)
    assert same is not None
    assert not same.is_usable
    assert effect(Moments(1, 1.0), Moments(500, 1.0), 0.95, 10_000) is None


def test_moments_of_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    values = rng.lognormal(0, 1, 1_000)
    whole = Moments()
    for part in np.split(values, [0, 1, 400, 999]):
        whole += moments(part)
    expected = moments(values)
    assert whole.n == expected.n
    for name in ("mean", "squares", "cubes", "variance"):
        assert getattr(whole, name) == pytest.approx(getattr(expected, name))
