"""Quiet hours by the clock on the wall."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from perennial_spec.retraining import QuietHours


def until(moment: str, **hours: Any) -> str | None:
    spec = QuietHours.model_validate({"start": "22:00", "end": "06:00", **hours})
    found = spec.until(datetime.fromisoformat(moment).replace(tzinfo=UTC))
    return f"{found:%Y-%m-%d %H:%M}" if found else None


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-06-01 21:59", None),
        ("2026-06-01 22:00", "2026-06-02 06:00"),
        ("2026-06-02 00:30", "2026-06-02 06:00"),
        ("2026-06-02 05:59", "2026-06-02 06:00"),
        ("2026-06-02 06:00", None),
    ],
)
def test_they_go_over_midnight(moment: str, expected: str | None) -> None:
    assert until(moment) == expected


def test_they_may_lie_within_a_day() -> None:
    assert until("2026-06-01 12:00", start="09:00", end="17:00") == "2026-06-01 17:00"
    assert until("2026-06-01 18:00", start="09:00", end="17:00") is None


def test_days_are_those_on_which_they_begin() -> None:
    weekend = {"days": ["fri", "sat"]}  # 2026-06-05 is a Friday
    assert until("2026-06-05 23:00", **weekend) == "2026-06-06 06:00"
    assert until("2026-06-07 05:00", **weekend) == "2026-06-07 06:00"
    assert until("2026-06-07 23:00", **weekend) is None


def test_they_are_those_of_the_time_zone_also_when_its_clock_changes() -> None:
    berlin = {"timezone": "Europe/Berlin"}
    assert until("2026-01-15 21:30", **berlin) == "2026-01-16 05:00"
    assert until("2026-07-15 20:30", **berlin) == "2026-07-16 04:00"
    assert until("2026-03-28 21:30", **berlin) == "2026-03-29 04:00"  # the clock is put forward in that night
    assert until("2026-10-24 20:30", **berlin) == "2026-10-25 05:00"  # and back in this one


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        ({"start": "22"}, "start"),
        ({"end": "24:00"}, "end"),
        ({"end": "22:00"}, "expected hours that end before they begin again"),
        ({"timezone": "Mars/Olympus"}, "expected the name of a time zone, as UTC or Europe/Berlin"),
        ({"timezone": "../etc/passwd"}, "expected the name of a time zone"),
        ({"days": []}, "days"),
        ({"let_through": ["sun"]}, "let_through"),
    ],
)
def test_what_cannot_be_is_refused(hours: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        until("2026-06-01 12:00", **hours)
