"""Rankers are measured list by list, as scikit-learn would, and compared by drawing lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from perennial_spec.model import METRICS_OF, SliceGate
from perennial_steps.evaluation import bootstrap
from perennial_steps.evaluation.bootstrap import paired_bootstrap
from perennial_steps.evaluation.gates import Challenger, judge
from perennial_steps.evaluation.metrics import figure, measure
from perennial_steps.evaluation.ranking import by_list, curve

Array = np.ndarray[Any, Any]
SCORES = st.sampled_from([0.0, 0.5, -1.25, 3.0]) | st.floats(-5, 5)
LISTS = st.lists(st.lists(st.tuples(st.integers(0, 4), SCORES), min_size=1, max_size=8), min_size=1, max_size=6)


def flat(lists: list[list[tuple[int, float]]]) -> tuple[Array, Array, Array]:
    """Label, score, group."""
    rows = [(grade, score, number) for number, each in enumerate(lists) for grade, score in each]
    label, score, group = (np.array(column) for column in zip(*rows, strict=True))
    return label.astype(float), score.astype(float), group.astype(np.int64)


@given(LISTS)
def test_ndcg_of_each_list_is_scikit_learns_with_ties_too(lists: list[list[tuple[int, float]]]) -> None:
    label, score, group = flat(lists)
    for number, (found, rows) in enumerate(zip(by_list("ndcg", label, score, group), lists, strict=True)):
        inside = group == number
        if label[inside].max() == 0:
            assert np.isnan(found)
        elif len(rows) == 1:
            assert found == 1  # scikit-learn refuses a list of one
        else:
            gain = np.exp2(label[inside]) - 1
            assert found == pytest.approx(reference.ndcg_score([gain], [score[inside]]))


@given(LISTS)
def test_average_precision_of_each_list_is_scikit_learns_with_ties_too(lists: list[list[tuple[int, float]]]) -> None:
    label, score, group = flat(lists)
    for number, found in enumerate(by_list("map", label, score, group)):
        relevant = label[group == number] > 0
        if not relevant.any():
            assert np.isnan(found)
        else:
            assert found == pytest.approx(reference.average_precision_score(relevant, score[group == number]))


@given(LISTS, st.integers(1, 10))
def test_the_curve_is_the_mean_of_the_first_places(lists: list[list[tuple[int, float]]], depth: int) -> None:
    label, score, group = flat(lists)
    known = [
        reference.ndcg_score([np.exp2(label[group == number]) - 1], [score[group == number]], k=depth)
        if len(rows) > 1
        else 1.0
        for number, rows in enumerate(lists)
        if label[group == number].max() > 0
    ]
    found = curve(label, score, group, depth)[-1]
    assert found == pytest.approx(np.mean(known)) if known else np.isnan(found)


def test_lists_in_which_nothing_is_relevant_do_not_count() -> None:
    label, score, group = flat([[(1, 2.0), (0, 1.0)], [(0, 1.0), (0, 2.0)]])
    assert measure("xgboost.ranker", label, score, group) == {"ndcg": 1.0, "map": 1.0}
    assert set(METRICS_OF["xgboost.ranker"]) == {"ndcg", "map"}
    nothing = measure("xgboost.ranker", label[2:], score[2:], group[2:])
    assert np.isnan(list(nothing.values())).all()
    assert np.isnan(figure("ndcg", label[:0], score[:0], group[:0]))


def test_equal_scores_gain_nothing_from_the_order_of_the_data() -> None:
    best_first, best_last = flat([[(3, 0.0), (0, 0.0), (0, 0.0)]]), flat([[(0, 0.0), (0, 0.0), (3, 0.0)]])
    for metric in ("ndcg", "map"):
        assert figure(metric, *best_first) == pytest.approx(figure(metric, *best_last))
        assert figure(metric, *best_first) < 0.8


def simulate(
    lists: int, noise: tuple[float, float], generator: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Grades, the scores of two models that see the truth through noise of each list and row, and the lists."""
    sizes = generator.integers(2, 9, lists)
    group = np.repeat(np.arange(lists), sizes)
    truth = generator.normal(size=len(group))
    label = np.clip(np.round(truth + 1), 0, 3)
    hard = generator.exponential(size=lists)[group]  # some lists are hard, whatever the model
    scores = [truth + level * hard * generator.normal(size=len(group)) for level in noise]
    return label, scores[0], scores[1], group


@pytest.mark.parametrize("metric", ["ndcg", "map"])
def test_a_clear_gain_is_found_and_a_loss_is_none(metric: str) -> None:
    label, good, bad, group = simulate(500, (0.3, 2.0), np.random.default_rng(1))
    gain = paired_bootstrap(metric, label, good, bad, confidence=0.95, group=group)
    assert 0 < gain.low < gain.gain < gain.high
    assert gain.gain == pytest.approx(figure(metric, label, good, group) - figure(metric, label, bad, group))
    assert (gain.rows, gain.resamples) == (len(label), 1000)
    assert gain.lists is not None
    assert gain.lists <= 500
    assert paired_bootstrap(metric, label, bad, good, confidence=0.95, group=group).high < 0


def test_rows_that_are_repeated_within_their_lists_make_nothing_surer() -> None:
    label, one, other, group = simulate(200, (1.0, 1.2), np.random.default_rng(2))
    once = paired_bootstrap("map", label, one, other, confidence=0.95, group=group)
    again = [np.repeat(values, 10) for values in (label, one, other)]
    tenfold = paired_bootstrap("map", *again, confidence=0.95, group=np.repeat(group, 10))
    assert tenfold.high - tenfold.low > 0.5 * (once.high - once.low)


def test_without_a_relevant_row_there_is_no_interval() -> None:
    nothing = np.zeros(10)
    gain = paired_bootstrap("ndcg", nothing, nothing, nothing, confidence=0.95, group=np.arange(10))
    assert np.isnan([gain.gain, gain.low, gain.high]).all()
    assert (gain.resamples, gain.lists) == (0, 0)


def test_more_lists_than_are_needed_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MAX_ROWS", 100)
    label, one, other, group = simulate(400, (0.3, 2.0), np.random.default_rng(3))
    gain = paired_bootstrap("ndcg", label, one, other, confidence=0.95, group=group)
    assert gain.lists == 100
    assert gain.low > 0


def test_the_lower_end_lies_above_the_true_gain_as_seldom_as_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of equal strength: a one-sided 90% interval may lie above 0 in 10% of worlds."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200)
    generator, worlds, above = np.random.default_rng(11), 400, 0
    for world in range(worlds):
        label, one, other, group = simulate(80, (1.0, 1.0), generator)
        above += paired_bootstrap("ndcg", label, one, other, confidence=0.9, seed=world, group=group).low > 0
    assert above / worlds == pytest.approx(0.10, abs=0.045)  # three standard errors of 400 draws


def test_a_slice_of_a_ranker_is_measured_on_its_lists() -> None:
    label, good, bad, group = simulate(300, (0.1, 3.0), np.random.default_rng(4))
    market = np.where(group % 2 == 0, "north", "south").astype(object)
    score = np.where(group % 2 == 0, good, bad)
    challenger = Challenger({}, label, score, {"market": market}.__getitem__, None, group)
    found = judge(SliceGate(slice="market", metric="ndcg", min=0.95, min_rows=50), challenger, "ndcg")
    assert not found.passed
    assert found.note.startswith("worst of 2: south")
    south = group % 2 == 1
    assert found.value == pytest.approx(figure("ndcg", label[south], score[south], group[south]))


def test_a_metric_of_lists_needs_lists() -> None:
    with pytest.raises(ValueError, match="ndcg is a metric of lists"):
        figure("ndcg", np.ones(2), np.ones(2))
