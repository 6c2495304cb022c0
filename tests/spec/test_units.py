from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_spec.units import format_duration, format_share, parse_duration, parse_memory, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("10s", 10), ("5m", 300), ("6h", 21600), ("14d", 1209600), ("2w", 1209600), ("1.5h", 5400)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == pytest.approx(seconds)


@given(st.integers(0, 10**9))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize("text", ["946474287829588h", "100001d", "9" * 400 + "s"])
def test_a_duration_that_nobody_means_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration of at most 100000d"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["6 hours", "h", "", 6, None, "-1h"])
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="as in 10m"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), (0.1, 0.1), (1, 1.0), ("0.5%", 0.005)])
def test_shares(text: object, value: float) -> None:
    assert parse_share(text) == pytest.approx(value)
    assert parse_share(format_share(value)) == pytest.approx(value)


@pytest.mark.parametrize("text", ["lots", True, None, "10 %"])
def test_what_is_no_share_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"10% or 0\.1"):
        parse_share(text)


@pytest.mark.parametrize(("text", "value"), [("4Gi", 4 * 2**30), ("500M", 500_000_000), (1024, 1024), ("1.5Ki", 1536)])
def test_memory(text: object, value: int) -> None:
    assert parse_memory(text) == value


@pytest.mark.parametrize("text", ["much", True, "4 Gi"])
def test_what_is_no_memory_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="such as 4Gi"):
        parse_memory(text)
