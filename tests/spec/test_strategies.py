"""Words that do nothing for the chosen strategy are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from perennial_spec.deployment import Deployment


@pytest.mark.parametrize("strategy", ["blue_green", "shadow"])
def test_all_the_traffic_comes_at_once(strategy: str) -> None:
    assert Deployment.model_validate({"strategy": strategy}).rollout == (1.0,)
    with pytest.raises(ValidationError, match=f"steps does nothing with strategy {strategy}: leave it out"):
        Deployment.model_validate({"strategy": strategy, "steps": ["50%", "100%"]})


@pytest.mark.parametrize("strategy", ["canary", "replace", "blue_green"])
def test_words_of_the_shadow_are_of_that_strategy(strategy: str) -> None:
    with pytest.raises(
        ValidationError, match=f"shadow does nothing with strategy {strategy}: expected strategy shadow"
    ):
        Deployment.model_validate({"strategy": strategy, "shadow": {"min_rows": 5}})
