from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perennial_spec.route import Route, point_of

keys = st.text(min_size=1, max_size=30)


@given(keys, st.floats(0.01, 0.99))
def test_growing_the_challenger_never_moves_a_key_back_to_the_champion(key: str, share: float) -> None:
    before = Route(weights={"1": 1 - share / 2, "2": share / 2})
    after = Route(weights={"1": 1 - share, "2": share})
    point = point_of(key)
    if before.version_at(point) == "2":
        assert after.version_at(point) == "2"


def test_shares_of_keys_follow_the_weights() -> None:
    route = Route(weights={"1": 0.9, "2": 0.1})
    answers = [route.version_at(point_of(f"flight-{i}")) for i in range(20_000)]
    assert abs(answers.count("2") / len(answers) - 0.1) < 0.01


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=5), st.floats(0, 1, exclude_max=True))
def test_every_point_has_a_version_whatever_the_weights(parts: list[float], point: float) -> None:
    route = Route(weights={str(i): part / sum(parts) for i, part in enumerate(parts)})
    assert route.version_at(point) in route.live


def test_a_point_is_the_same_on_every_machine() -> None:
    assert point_of("AA-1-JFK") == pytest.approx(0.07732998503373201, abs=1e-15)


@pytest.mark.parametrize("weights", [{"1": 0.5}, {"1": 1.5, "2": -0.5}])
def test_weights_that_are_no_distribution_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        Route(weights=weights)


def test_a_move_that_changes_nothing_keeps_the_revision() -> None:
    route = Route(revision=3, weights={"1": 1.0})
    assert route.moved_to({"1": 1.0}, "x") is route
    assert route.moved_to({"2": 1.0}, "x").revision == 4


def test_a_route_survives_its_own_json() -> None:
    route = Route(revision=3, weights={"1": 0.9, "2": 0.1}, shadow=("3",), changed_by="run")
    assert Route.model_validate_json(route.model_dump_json()) == route
    assert list(Route.model_validate_json(route.model_dump_json()).weights) == ["1", "2"]
