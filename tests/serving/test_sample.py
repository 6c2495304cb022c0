"""The sample of served rows: every row with the same chance, never more than its size, whatever turns they come in."""

from __future__ import annotations

import numpy as np
import pytest

from perennial_serving.sample import Sample


def numbered(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.float32)[:, None]


def offered(sample: Sample, total: int, turn: int) -> list[int]:
    for first in range(0, total, turn):
        sample.offer(numbered(first, min(turn, total - first)))
    return sample.take()[:, 0].astype(int).tolist()


@pytest.mark.parametrize("turn", [1, 7, 100])
def test_few_rows_are_all_taken(turn: int) -> None:
    sample = Sample(50, 1)
    assert offered(sample, 50, turn) == list(range(50))
    assert offered(sample, 3, turn) == [0, 1, 2], "each sample begins anew"
    assert offered(sample, 0, turn) == []


@pytest.mark.parametrize("turn", [1, 13, 400])
def test_every_row_has_the_same_chance(turn: int) -> None:
    size, total, times = 20, 400, 1500
    seen = np.zeros(total)
    sample = Sample(size, 1)
    for _ in range(times):
        found = offered(sample, total, turn)
        assert len(found) == len(set(found)) == size
        seen[found] += 1
    expected = times * size / total
    # 20 groups of 20 rows: chi-squared with 19 degrees of freedom, whose 0.99999 quantile is 57.
    groups = seen.reshape(20, 20).sum(axis=1)
    assert ((groups - 20 * expected) ** 2 / (20 * expected)).sum() < 57


def test_what_was_taken_stays_as_it_was() -> None:
    sample = Sample(2, 1)
    rows = numbered(1, 2)
    sample.offer(rows)
    rows[:] = 0
    found = sample.take()
    sample.offer(numbered(8, 2))
    assert found[:, 0].tolist() == [1, 2]


def test_a_sample_of_one() -> None:
    sample = Sample(1, 1)
    assert {offered(sample, 5, 2)[0] for _ in range(300)} == {0, 1, 2, 3, 4}
