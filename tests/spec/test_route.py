from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perennial_spec.allocation import MAX_PIECES, WHOLE, moved, shares
from perennial_spec.route import MeanArm, RateArm, Route, point_of

keys = st.text(min_size=1, max_size=30)
VERSIONS = [str(n) for n in range(1, 7)]


def normal(parts: dict[str, float]) -> dict[str, float]:
    return {version: part / sum(parts.values()) for version, part in parts.items()}


# Weights of up to six versions in any order, some of them 0, some tiny.
splits = (
    st.dictionaries(
        st.sampled_from(VERSIONS), st.sampled_from([0.0, 1e-7, 1.0, 1.0, 3.0]) | st.floats(0.001, 1), min_size=1
    )
    .filter(lambda parts: sum(parts.values()) > 0)
    .map(normal)
)


def moved_share(before: Route, after: Route) -> float:
    """The share of [0, 1) that has another owner."""
    cuts = sorted({0.0, *(bound for route in (before, after) for _, bound in route.intervals())})
    return sum(high - low for low, high in pairwise(cuts) if before.version_at(low) != after.version_at(low))


def must_move(before: dict[str, float], after: dict[str, float]) -> float:
    return sum(abs(before.get(v, 0) - after.get(v, 0)) for v in {**before, **after}) / 2


# -- sticky: the smallest possible move --


@given(st.lists(splits, min_size=2, max_size=12))
def test_a_chain_of_changes_moves_no_key_that_need_not_move_and_shares_stay_exact(
    chain: list[dict[str, float]],
) -> None:
    route = Route(weights=chain[0])
    for weights in chain[1:]:
        after = route.moved_to(weights, "x")
        assert moved_share(route, after) == pytest.approx(must_move(route.weights, weights), abs=1e-9)
        owned = shares(tuple(after.intervals()))
        assert owned.keys() <= weights.keys()
        assert all(abs(owned.get(version, 0.0) - weight) < 1e-9 for version, weight in weights.items())
        assert Route.model_validate_json(after.model_dump_json()) == after
        route = after


@given(splits, splits, st.lists(keys, min_size=1, max_size=20))
def test_a_key_only_leaves_versions_that_shrink_and_only_joins_versions_that_grow(
    old: dict[str, float], new: dict[str, float], some: list[str]
) -> None:
    before = Route(weights=old)
    after = before.moved_to(new, "x")
    for point in map(point_of, some):
        left, joined = before.version_at(point), after.version_at(point)
        if left != joined:
            assert new.get(left, 0) < old[left]
            assert new[joined] > old.get(joined, 0)


@pytest.mark.parametrize("versions", [2, 3, 6])
def test_pieces_stay_few_over_a_thousand_changes(versions: int) -> None:
    rng = random.Random(versions)
    route, most = Route(weights={"1": 1.0}), 0
    for _ in range(1000):
        parts = {v: rng.choice([0.0, 1.0, rng.random()]) for v in VERSIONS[:versions]}
        route = route.moved_to(normal({**parts, rng.choice(VERSIONS[:versions]): 1.0}), "x")
        most = max(most, len(route.intervals()))
    assert most <= versions * versions
    assert len(route.model_dump_json()) < 5000


def test_too_many_pieces_are_laid_out_anew() -> None:
    count = MAX_PIECES + 2
    pieces = tuple((str(place % 2), (place + 1) / count) for place in range(count))
    assert moved(pieces, {"0": 0.5, "1": 0.25, "2": 0.25}) == (("0", 0.5), ("1", 0.75), ("2", 1.0))


def test_the_steps_of_a_rollout_need_no_pieces_and_are_written_as_ever() -> None:
    route = Route()
    for weights in ({"1": 1.0}, {"1": 0.9, "2": 0.1}, {"1": 0.5, "2": 0.5}, {"2": 1.0}, {"2": 0.9, "3": 0.1}):
        route = route.moved_to(weights, "run")
        assert route.pieces == ()
        assert route.intervals() == Route(weights=weights).intervals()
    assert route.model_dump_json() == '{"revision":5,"weights":{"2":0.9,"3":0.1},"shadow":[],"changed_by":"run"}'
    assert route.moved_to({}, "run").moved_to({"4": 1.0}, "run").intervals() == [("4", 1.0)]


def test_a_version_that_leaves_hands_its_keys_over_where_they_are() -> None:
    route = Route(weights={"1": 0.4, "2": 0.2, "3": 0.4}).moved_to({"1": 0.6, "3": 0.4}, "x")
    assert route.intervals() == [("1", 0.6), ("3", 1.0)]
    spread = Route(weights={"1": 0.5, "2": 0.25, "3": 0.25}).moved_to({"1": 0.5, "3": 0.25, "2": 0.25}, "x")
    assert spread.pieces == (("1", 0.5), ("2", 0.75), ("3", 1.0))  # another order alone moves nobody


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


@given(keys)
def test_a_point_is_a_place_and_never_1(key: str) -> None:
    assert (point_of(key) * WHOLE).is_integer()
    assert 0 <= point_of(key) < 1


# -- what is no route --


@pytest.mark.parametrize("weights", [{"1": 0.5}, {"1": 1.5, "2": -0.5}, {"1": float("nan")}])
def test_weights_that_are_no_distribution_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        Route(weights=weights)
    with pytest.raises(ValidationError, match="sum to 1"):
        Route(weights={"1": 0.5, "2": 0.5}).moved_to(weights, "x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pieces": [["1", 0.5]]}, "upper bounds rise to 1"),
        ({"pieces": [["1", 0.5], ["2", 0.5], ["1", 1.0]]}, "upper bounds rise to 1"),
        ({"pieces": [["1", float("nan")], ["2", 1.0]]}, "upper bounds rise to 1"),
        (
            {"pieces": [["1", 0.4], ["2", 1.0]]},
            "give version 1 0.4 of the traffic, and its weight is 0.5; take the pieces",
        ),
        ({"pieces": [["1", 0.5], ["2", 0.9], ["3", 1.0]]}, "give version 2 0.4 of the traffic"),
        ({"pieces": [["3", 0.5], ["2", 1.0]]}, "give version 1 0 of the traffic, and its weight is 0.5"),
        ({"arms": {"1": {"successes": 1}}}, 'arms only with assignment "bandit"'),
        (
            {"assignment": "bandit", "arms": {"3": {"successes": 1}}},
            "expected arms of the versions in weights, got one of 3",
        ),
        ({"assignment": "bandit", "arms": {"1": {"successes": -1}}}, "with numbers of at least 0"),
        ({"assignment": "bandit", "arms": {"1": {"successes": float("inf")}}}, "expected arms by version"),
        ({"assignment": "bandit", "arms": {"1": {"mean": 1, "deviation": 0, "count": 3}}}, "above 0"),
        (
            {"assignment": "bandit", "arms": {"1": {"successes": 1}, "2": {"mean": 1, "deviation": 1, "count": 3}}},
            "expected arms by version, all",
        ),
        ({"assignment": "random"}, "'sticky' or 'bandit'"),
    ],
)
def test_what_is_no_route_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Route.model_validate({"weights": {"1": 0.5, "2": 0.5}, **changes})


# -- revisions and arms --


def test_a_move_that_changes_nothing_keeps_the_revision() -> None:
    route = Route(revision=3, weights={"1": 1.0})
    assert route.moved_to({"1": 1.0}, "x") is route
    assert route.moved_to({"2": 1.0}, "x").revision == 4


def test_a_bandit_ends_when_the_weights_are_moved_without_arms() -> None:
    arms = {"1": RateArm(successes=8, failures=2), "2": RateArm(successes=1)}
    route = Route(weights={"1": 0.5, "2": 0.5}, shadow=("9",)).with_arms(arms, "learner")
    assert (route.revision, route.assignment, route.changed_by, route.shadow) == (1, "bandit", "learner", ("9",))
    assert route.with_arms(arms, "learner") is route
    for weights in ({"2": 0.5, "3": 0.5}, {"1": 0.5, "2": 0.5}):
        after = route.moved_to(weights, "run")
        assert (after.revision, after.assignment, after.arms) == (2, "sticky", {})
    fresh = {"2": MeanArm(mean=1, deviation=2, count=3)}
    assert route.moved_to(route.weights, "run", fresh).arms == fresh
    assert route.moved_to(route.weights, "run", arms) is route


def test_a_route_survives_its_own_json() -> None:
    route = Route(revision=3, weights={"1": 0.9, "2": 0.1}, shadow=("3",), changed_by="run")
    arms = {"1": MeanArm(mean=-1.5, deviation=0.1, count=20)}
    for each in (route, route.moved_to({"1": 0.5, "2": 0.25, "4": 0.25}, "x"), route.with_arms(arms, "x")):
        assert Route.model_validate_json(each.model_dump_json()) == each
        assert list(Route.model_validate_json(each.model_dump_json()).weights) == list(each.weights)
