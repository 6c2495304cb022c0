from __future__ import annotations

from datetime import timedelta

import pytest
from ledger_rows import NOON, bystander, decision

from perennial_cli.clients.prometheus import Series, Span
from perennial_cli.report.model import MOST_POINTS, fired, step_of

SPAN = Span(NOON - timedelta(hours=1), NOON + timedelta(hours=1), timedelta(seconds=60))


def firing(name: str, first: int, last: int) -> Series:
    """One point a minute, from `first` to `last` minutes after noon."""
    points = tuple(((NOON + timedelta(minutes=m)).timestamp(), 1.0) for m in range(first, last + 1))
    return Series({"alertname": name, "severity": "critical"}, points)


@pytest.mark.parametrize("days", [0.01, 1, 7, 30, 365])
def test_no_series_is_asked_for_more_points_than_a_chart_shows(days: float) -> None:
    length = timedelta(days=days)
    assert length / step_of(length) + 1 <= MOST_POINTS
    assert step_of(length) >= timedelta(seconds=15)


def test_an_alert_of_the_ledger_has_its_exact_times() -> None:
    (found,) = fired([firing("PerennialFeatureDrift", 1, 12)], [decision(1)], SPAN)
    assert (found.start, found.end, found.decision) == (NOON, NOON + timedelta(minutes=12), 1)


def test_an_alert_that_the_ledger_does_not_have_is_known_to_the_step() -> None:
    (found,) = fired([firing("PerennialModelServerDown", 5, 7)], [decision(1, 0, kind="person")], SPAN)
    assert found.name == "PerennialModelServerDown"
    assert found.severity == "critical"
    assert found.decision is None
    assert (found.start, found.end) == (NOON + timedelta(minutes=4), NOON + timedelta(minutes=7))


def test_an_alert_that_fires_at_the_end_fires_still() -> None:
    (found,) = fired([firing("PerennialModelServerDown", 50, 60)], [], SPAN)
    assert found.end is None


def test_two_stretches_are_two_firings_the_newest_first() -> None:
    series = firing("PerennialModelServerDown", 5, 7)
    later = firing("PerennialModelServerDown", 30, 31)
    found = fired([Series(series.labels, series.points + later.points)], [], SPAN)
    assert [one.start for one in found] == [NOON + timedelta(minutes=29), NOON + timedelta(minutes=4)]


def test_an_alert_that_was_over_before_is_left_out() -> None:
    assert fired([], [bystander(1, -300)], SPAN) == ()
