"""Attributions: shares that add up, and noise that chance keeps to."""

from __future__ import annotations

import numpy as np
import pytest

from perennial_features.attribution import Attribution


def contributions(rows: int, seed: int, scales: tuple[float, ...] = (2.0, 1.0, 0.5, 0.1, 0.0)) -> np.ndarray:
    """Signed, with tails, and dependent on one another as contributions of one row are."""
    rng = np.random.default_rng(seed)
    common = rng.gamma(2.0, 1.0, (rows, 1))
    return rng.normal(size=(rows, len(scales))) * common * np.array(scales)


FEATURES = ("a", "b", "c", "d", "unused")


def of(rows: int, seed: int) -> Attribution:
    found = Attribution.of(FEATURES, contributions(rows, seed))
    assert found is not None
    return found


def test_shares_are_of_the_mean_absolute_contribution() -> None:
    found = Attribution.of(("a", "b"), np.array([[1.0, -3.0], [-2.0, 2.0]]))
    assert found is not None
    assert (found.shares, found.scale, found.rows) == ((3 / 8, 5 / 8), 4.0, 2)
    assert found.shift([3, 5]) == 0
    assert found.shift([5, 3]) == pytest.approx(0.25)


@pytest.mark.parametrize("live", [200, 1000, 5000])
def test_chance_alone_seldom_exceeds_the_noise(live: int) -> None:
    """1,000 samples beside a reference of their own kind: 0.5 are expected above; the normal approximation is a bit short for few rows."""
    draws, reference = 1000, of(2000, 0)
    shifts = np.array([reference.shift(np.abs(contributions(live, seed)).sum(axis=0)) for seed in range(1, draws + 1)])
    assert (shifts > reference.noise_at(live)).sum() <= 3
    assert np.quantile(shifts, 0.99) > reference.noise_at(live) / 2, "it is no wider than it must be"


def test_a_real_shift_is_beyond_the_noise() -> None:
    reference = of(2000, 0)
    live = contributions(500, 1, (1.0, 2.0, 0.5, 0.1, 0.0))
    assert reference.shift(np.abs(live).sum(axis=0)) > 3 * reference.noise_at(500)


@pytest.mark.parametrize("values", [np.zeros((10, 5)), np.empty((0, 5)), np.full((3, 5), np.nan)])
def test_a_model_that_no_feature_moves_has_none(values: np.ndarray) -> None:
    assert Attribution.of(FEATURES, values) is None


def test_the_same_rows_give_the_same_noise() -> None:
    assert of(300, 3) == of(300, 3)
