"""Counters in arrays: what goes in comes out, however it goes in."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_serving.counter_table import RECORDS, SIZE, Numbers
from perennial_serving.counting import BUCKETS, OTHER, Counted, ServerCounters, VersionCounters, size_of

REFERENCE: Any = SimpleNamespace(
    series=[("distance", str(n)) for n in range(7)], ranged=("distance",), attribution=None
)


def test_bins_and_rows_are_counted_in_place() -> None:
    cells = np.zeros(size_of(REFERENCE), dtype=np.int64)
    counters = VersionCounters(REFERENCE, cells)
    counters.observe(np.arange(7), 3)
    counters.bins += 1
    counters.predicted(2)
    counters.values += 10
    counted = Counted(cells, 7, 1)
    assert (counted.rows, counted.bins, counted.out_of_range) == (5, list(range(11, 18)), [10])


@given(st.lists(st.floats(0, 10) | st.sampled_from(BUCKETS), max_size=50))
def test_a_turns_requests_are_counted_as_one_by_one(seconds: list[float]) -> None:
    together, single = VersionCounters(REFERENCE), VersionCounters(REFERENCE)
    for each in seconds:
        single.request("oip", 200, each)
    together.requests("oip", 200, list(seconds))
    expected = Counter(bisect_left(BUCKETS, each) for each in seconds)
    for found in (together.counted, single.counted):
        assert found.latency == [expected[bucket] for bucket in range(len(BUCKETS) + 1)]
        assert found.requests["oip", 200] == len(seconds)
        assert found.seconds == pytest.approx(sum(seconds), abs=1e-7)


def test_each_protocol_and_status_has_a_place_of_its_own_and_the_rest_share_one() -> None:
    counters = VersionCounters(REFERENCE)
    counters.request("shadow", 500, 0.1)
    counters.requests("grpc", 504, [0.1, 0.2])
    counters.request("explain", 418, 0.1)
    counters.request("explain", 451, 0.1)
    found = {key: count for key, count in counters.counted.requests.items() if count}
    assert found == {("shadow", 500): 1, ("grpc", 504): 2, ("explain", OTHER): 2}


def test_tables_keep_numbers_by_key_and_go_on_where_a_process_before_left_them() -> None:
    buffer = memoryview(bytearray(SIZE))
    counters = ServerCounters(Numbers(buffer))
    counters.refused["", "oip", 404] += 2
    counters.labels["flights"] += 3
    counters.reward_sums["flights", "7"] += -0.5
    counters.shed["flights"] = 1
    again = ServerCounters(Numbers(buffer))
    again.refused["", "oip", 404] += 1
    assert dict(again.refused.items()) == {("", "oip", "404"): 3}
    assert (again.labels.get("flights"), again.labels.get("other")) == (3, 0)
    assert dict(again.reward_sums.items()) == {("flights", "7"): -0.5}
    assert dict(again.rewards.items()) == {}
    assert again.shed["flights"] == 1


def test_names_are_bounded_and_what_does_not_fit_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    counters = ServerCounters()
    for n in range(RECORDS + 50):
        counters.labels[f"pipeline-{n}"] += 1
    counters.labels["x" * 5000] += 1
    assert len(dict(counters.labels.items())) == RECORDS - 1
    assert caplog.text.count("the table of counters is full") == 1
    counters.labels["pipeline-0"] += 1
    assert counters.labels["pipeline-0"] == 2
