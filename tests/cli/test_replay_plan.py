from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_cli.replay.plan import Cursor, Event, Plan

START = datetime(2013, 6, 1, tzinfo=UTC)


def plan(minutes: list[int], *, batch: int = 10, delay_minutes: int = 30) -> Plan:
    events = [
        Event(START + timedelta(minutes=m), f"flight-{i}", {}, float(i % 2)) for i, m in enumerate(sorted(minutes))
    ]
    return Plan(
        events=tuple(events),
        start=START,
        end=START + timedelta(hours=2),
        per_second=timedelta(minutes=1),
        label_delay=timedelta(minutes=delay_minutes),
        batch=batch,
    )


@given(st.lists(st.integers(0, 120), max_size=50), st.integers(1, 7), st.lists(st.integers(0, 130), max_size=20))
def test_every_row_is_asked_once_and_in_order_however_the_ticks_fall(
    minutes: list[int], batch: int, ticks: list[int]
) -> None:
    cursor = Cursor(plan(minutes, batch=batch))
    asked = [
        event
        for tick in [*sorted(ticks), 120]
        for events in cursor.ask(min(START + timedelta(minutes=tick), START + timedelta(hours=2)))
        for event in events
    ]
    assert asked == list(plan(minutes).events)
    assert cursor.is_done


@given(st.lists(st.integers(0, 100), max_size=50), st.lists(st.integers(0, 200), max_size=20))
def test_a_label_comes_once_and_never_before_its_time(minutes: list[int], ticks: list[int]) -> None:
    cursor, seen = Cursor(plan(minutes)), 0
    for tick in sorted(ticks):
        now = START + timedelta(minutes=tick)
        arrived = cursor.labels(now)
        assert all(event.at + timedelta(minutes=30) < now for event in arrived)
        seen += len(arrived)
    assert seen + len(cursor.labels(START + timedelta(days=1))) == len(minutes)


def test_requests_hold_at_most_a_batch() -> None:
    cursor = Cursor(plan(list(range(25)), batch=10))
    assert [len(events) for events in cursor.ask(START + timedelta(hours=1))] == [10, 10, 5]


def test_simulated_time_runs_as_fast_as_told_and_stops_at_the_end() -> None:
    replay = plan([0])
    assert replay.seconds == pytest.approx(120)
    assert replay.simulated(30) == START + timedelta(minutes=30)
    assert replay.simulated(1000) == replay.end
