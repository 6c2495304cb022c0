"""How often the registry is asked: by a hundred servers that were started together, and while it is away."""

from __future__ import annotations

from perennial_serving.pace import Pace
from perennial_serving.settings import Settings


def test_looks_are_spread_out_and_rarer_while_the_registry_is_away_or_slow() -> None:
    pace = Pace(Settings(poll_seconds=4, poll_jitter=0.25, poll_max_seconds=60))
    usual = [pace.answered(0.01) for _ in range(200)]
    assert 4 <= min(usual) < 4.2
    assert 4.8 < max(usual) <= 5
    assert pace.answered(2) == 20
    assert pace.answered(100) == 60
    bounds = [[pace.failed() for _ in range(8)] for _ in range(200) if pace.answered(0)]
    for failures, bound in enumerate([8, 16, 32, 60, 60]):
        waits = [each[failures] for each in bounds]
        assert 4 <= min(waits) < 4 + bound / 8
        assert bound * 7 / 8 < max(waits) <= bound
    assert pace.answered(0) <= 5


def test_a_bound_below_the_usual_wait_makes_no_look_more_frequent() -> None:
    pace = Pace(Settings(poll_seconds=4, poll_jitter=0.5, poll_max_seconds=1))
    assert min(pace.failed() for _ in range(50)) >= 4
