from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perennial_cli.embedded.backoff import Backoff


def test_waits_longer_after_each_failure_up_to_a_bound() -> None:
    backoff = Backoff(first=0.5, factor=2, most=3)
    assert [backoff.delay(failures) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_part_that_ran_long_enough_starts_counting_anew() -> None:
    backoff = Backoff(settled=60)
    assert backoff.failures(5, uptime=59.9) == 6
    assert backoff.failures(5, uptime=60.0) == 1


@given(failures=st.integers(min_value=1, max_value=10**9))
def test_never_gives_up_and_never_waits_longer_than_the_bound(failures: int) -> None:
    backoff = Backoff()
    assert 0 < backoff.delay(failures) <= backoff.most
