"""Sample ratio mismatch: seldom found where there is none, however often it is looked for."""

from __future__ import annotations

import numpy as np
import pytest

from perennial_steps.experiments.ratio import ALPHA, mismatch


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_healthy_split_is_not_held_at_any_look(share: float) -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(1_000):
        ours = (rng.random(5_000) < share).cumsum()[49::50]
        held += any(mismatch(int(n), (place + 1) * 50 - int(n), share) < ALPHA for place, n in enumerate(ours))
    assert held <= 5  # 1 is expected at most


def test_entities_that_go_missing_are_noticed() -> None:
    assert mismatch(5_000, 5_000, 0.5) == 1
    assert mismatch(4_700, 5_300, 0.5) < ALPHA  # 6% of the challenger's are lost
    assert mismatch(700, 9_300, 0.1) < ALPHA
    assert mismatch(0, 200, 0.5) < ALPHA  # it answers nobody
    assert mismatch(0, 0, 0.5) == 1
    assert mismatch(50_000_000, 60_000_000, 0.5) == 0
