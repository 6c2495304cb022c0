"""Who answers a row: the assignment to versions, the testers' override, and ids from which the version can be told again."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_serving.assignment import OVERRIDE_HEADER, Assigner, Bandit, overridden
from perennial_serving.entities import entity_keys
from perennial_serving.fleet import Served
from perennial_serving.refusals import UnknownVersion, sentence, status_of
from perennial_serving.rows import Rows
from perennial_spec.errors import RequestError
from perennial_spec.route import MeanArm, RateArm, Route, point_of

# -- by entity --


@given(
    weights=st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(any),
    later=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    keys=st.lists(st.text(max_size=8), min_size=1, max_size=20),
)
def test_every_replica_assigns_as_the_route_says(weights: list[int], later: list[float], keys: list[str]) -> None:
    route = Route(weights={str(place): weight / sum(weights) for place, weight in enumerate(weights)})
    for each in (route, route.moved_to({str(place): part / sum(later) for place, part in enumerate(later)}, "x")):
        answers = Assigner(each).assign(keys)
        expected = [each.version_at(point_of(key)) for key in keys]
        assert answers == expected if isinstance(answers, list) else {answers} == set(expected)


def test_a_route_with_one_version_does_not_look_at_the_keys() -> None:
    unreadable: Any = object()
    assert Assigner(Route(weights={"7": 1.0, "8": 0.0})).assign(unreadable) == "7"
    assert Assigner(Route(weights={"7": 1.0}).with_arms({}, "x")).assign(unreadable) == "7"


def test_rows_without_an_entity_are_shared_out_by_weight_and_others_stay_put() -> None:
    assigner = Assigner(Route(weights={"1": 0.7, "2": 0.3}), seed=1)
    answers = assigner.assign(["F1", None] * 10_000)
    assert len(set(answers[::2])) == 1
    assert abs(Counter(answers[1::2])["2"] - 3000) < 5 * 46  # five standard deviations


@pytest.mark.parametrize(
    "values", [["7", "a", "7.5"], [7, "a", 7.5], [7.0, "a", "7.5"], np.array([7, "a", 7.5], dtype=object)]
)
def test_entities_come_in_lists_and_arrays(values: Any) -> None:
    assert entity_keys(Rows({"id": values}, 3), "id") == ["7", "a", "7.5"]
    assert entity_keys(Rows({"id": np.array([7, 8, 9])}, 3), "id") == ["7", "8", "9"]
    assert entity_keys(Rows({"id": np.array([7.0, 8.5, 9.0])}, 3), "id") == ["7", "8.5", "9"]
    assert entity_keys(Rows({"x": values}, 3), "id") == [None] * 3


@pytest.mark.parametrize("values", [["a", "b" * 513], np.array([1.0, np.nan]), np.array(["a", True], dtype=object)])
def test_an_entity_that_cannot_be_a_key_is_named_by_its_row(values: Any) -> None:
    with pytest.raises(RequestError) as caught:
        entity_keys(Rows({"id": values}, 2), "id")
    assert caught.value.where == "column 'id', row 1"


# -- bandit --


def chance_of_the_second(route: Route) -> float:
    """The chance that the second version's true value is the larger, by integrating over both posteriors."""
    from scipy.stats import beta

    grid = np.linspace(0, 1, 20_001)
    first, second = (route.arms.get(version, RateArm()) for version in route.live)
    below = beta.cdf(grid, 1 + first.successes, 1 + first.failures)  # type: ignore[union-attr]
    density = beta.pdf(grid, 1 + second.successes, 1 + second.failures)  # type: ignore[union-attr]
    return float(np.trapezoid(below * density, grid))


@pytest.mark.parametrize(
    "arms",
    [
        {},
        {"1": RateArm(successes=12, failures=8), "2": RateArm(successes=14, failures=6)},
        {"1": RateArm(successes=50, failures=50)},
        {"1": RateArm(successes=2.5, failures=0.5), "2": RateArm(successes=0, failures=1)},
    ],
)
def test_a_version_is_chosen_as_often_as_it_is_likely_to_be_the_best(arms: dict[str, RateArm]) -> None:
    route = Route(weights={"1": 0.9, "2": 0.1, "3": 0.0}).with_arms(arms, "x")
    expected, rows = chance_of_the_second(route), 40_000
    counts = Counter(Assigner(route, seed=5).assign([None] * rows))
    assert counts.keys() <= {"1", "2"}
    assert abs(counts["2"] / rows - expected) < 4 * (expected * (1 - expected) / rows) ** 0.5


def test_means_are_compared_with_their_standard_errors() -> None:
    arms = {"1": MeanArm(mean=10, deviation=4, count=16), "2": MeanArm(mean=11, deviation=6, count=9)}
    route = Route(weights={"1": 0.5, "2": 0.5}).with_arms(arms, "x")
    expected = 0.6726  # Phi((11 - 10) / sqrt(1**2 + 2**2))
    counts = Counter(Bandit(route, seed=3).choose(40_000))
    assert abs(counts["2"] / 40_000 - expected) < 0.01


def test_a_version_of_which_nothing_is_known_is_tried() -> None:
    arms = {"1": MeanArm(mean=10, deviation=4, count=400), "2": MeanArm(mean=10.5, deviation=4, count=400)}
    route = Route(weights={"1": 0.4, "2": 0.3, "3": 0.3}).with_arms(arms, "x")
    assert 0.3 < Counter(Bandit(route, seed=3).choose(20_000))["3"] / 20_000 < 0.6


@given(st.lists(st.integers(0, 600), max_size=12))
def test_a_bandit_answers_for_every_row_whatever_the_sizes(sizes: list[int]) -> None:
    bandit = Bandit(Route(weights={"1": 0.5, "2": 0.5}).with_arms({}, "x"), seed=1)
    assert [len(bandit.choose(size)) for size in sizes] == sizes


# -- the testers' override --


def served(*loaded: str) -> Served:
    models: Any = {version: SimpleNamespace(version=version) for version in loaded}
    return Served("p", Route(weights={"1": 1.0}), models)


@pytest.mark.parametrize(("value", "version"), [(None, None), ("2", "2"), (" 1 ", "1")])
def test_a_tester_may_choose_any_version_that_is_loaded(value: str | None, version: str | None) -> None:
    assert overridden(value, served("1", "2")) == version


def test_a_version_that_is_not_loaded_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownVersion) as caught:
        overridden("3", served("1", "2"))
    assert status_of(caught.value) == 404
    assert sentence(caught.value) == "version '3' of p is not loaded here; expected one of 1, 2"


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_override_is_refused(value: str) -> None:
    with pytest.raises(RequestError, match="is empty") as caught:
        overridden(value, served("1"))
    assert caught.value.where == f"header {OVERRIDE_HEADER}"
    assert status_of(caught.value) == 400
