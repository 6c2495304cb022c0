"""Gates: each holds or names the figure and the bound that it missed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perennial_spec.errors import BatchError
from perennial_spec.model import ChampionGate, MetricGate, SliceGate
from perennial_steps.evaluation.bootstrap import Gain
from perennial_steps.evaluation.gates import Challenger, Judgement, Slice, judge
from perennial_steps.evaluation.report import MAX_TAG, Evaluation
from perennial_steps.training.dataset import Part

GENERATOR = np.random.default_rng(0)
GROUP = np.array(["x"] * 600 + ["y"] * 300 + [None] * 80 + ["z"] * 20, dtype=object)
LABEL = (GENERATOR.random(1000) < 0.5).astype(float)
SCORE = np.where(GROUP == "y", 1 - LABEL, LABEL) * 0.5 + GENERATOR.random(1000)  # wrong about y


def challenger(gain: Gain | None = None) -> Challenger:
    columns = {
        "group": GROUP,
        "number": np.arange(1000.0),
        "flag": np.arange(1000) % 2 == 0,
        "hole": np.where(np.arange(1000) < 500, np.nan, 1.0),
    }
    return Challenger({"roc_auc": 0.68, "log_loss": 0.6}, LABEL, SCORE, columns.__getitem__, gain)


@pytest.mark.parametrize(
    ("gate", "passed", "bound"),
    [
        (MetricGate(metric="roc_auc", min=0.68), True, ">= 0.68"),
        (MetricGate(metric="roc_auc", min=0.7), False, ">= 0.7"),
        (MetricGate(metric="log_loss", max=0.59), False, "<= 0.59"),
        (MetricGate(metric="roc_auc", min=0.5, max=0.6), False, ">= 0.5 and <= 0.6"),
    ],
)
def test_a_metric_gate_holds_at_its_bound_and_not_beyond(gate: MetricGate, passed: bool, bound: str) -> None:
    found = judge(gate, challenger(), "roc_auc")
    assert (found.passed, found.bound) == (passed, bound)


def test_a_metric_that_could_not_be_measured_passes_no_gate() -> None:
    unmeasured = replace(challenger(), metrics={"roc_auc": float("nan")})
    found = judge(MetricGate(metric="roc_auc", min=0.1), unmeasured, "roc_auc")
    assert not found.passed
    assert found.sentence() == "roc_auc is not measurable, expected >= 0.1"


def gain(low: float, middle: float = 0.05) -> Gain:
    return Gain("roc_auc", middle, low, 0.1, 0.95, 1000, 1000)


@pytest.mark.parametrize(("low", "passed"), [(0.0021, True), (0.002, True), (0.0019, False), (float("nan"), False)])
def test_the_lower_end_of_the_gain_must_reach_the_least_gain(low: float, passed: bool) -> None:
    found = judge(ChampionGate(against="champion", min_gain=0.002), challenger(gain(low)), "roc_auc")
    assert found.passed is passed
    assert "measured +0.0500" in found.note


def test_without_champion_the_gate_passes_and_says_why() -> None:
    found = judge(ChampionGate(against="champion"), challenger(), "roc_auc")
    assert found.passed
    assert found.note == "there is no champion yet"


def test_a_slice_that_is_left_behind_fails_and_is_named() -> None:
    found = judge(SliceGate(slice="group", metric="roc_auc", min=0.6, min_rows=50), challenger(), "roc_auc")
    assert not found.passed
    assert found.note == "worst of 3: y, 300 rows"
    assert found.value is not None
    assert found.value < 0.4
    assert [(each.value, each.rows, each.judged) for each in found.slices] == [
        ("x", 600, True),
        ("y", 300, True),
        ("missing", 80, True),
        ("z", 20, False),
    ]


def test_slices_with_few_rows_are_reported_and_not_judged() -> None:
    found = judge(SliceGate(slice="group", metric="roc_auc", min=0.6, min_rows=400), challenger(), "roc_auc")
    assert found.passed
    assert sum(each.judged for each in found.slices) == 1
    nothing = judge(SliceGate(slice="group", metric="roc_auc", min=0.6, min_rows=4000), challenger(), "roc_auc")
    assert nothing.passed
    assert nothing.note == "no slice has 4000 rows and a figure"


def test_the_worst_slice_of_a_loss_is_the_highest() -> None:
    gate = SliceGate(slice="group", metric="brier", max=10, min_rows=50)
    found = judge(gate, challenger(), "brier")
    assert found.value == max(each.figure for each in found.slices if each.judged and each.figure is not None)


def test_booleans_and_holes_are_slices_too() -> None:
    flags = judge(SliceGate(slice="flag", metric="roc_auc", min=0.1), challenger(), "roc_auc")
    assert {each.value for each in flags.slices} == {"True", "False"}
    holes = judge(SliceGate(slice="hole", metric="roc_auc", min=0.1), challenger(), "roc_auc")
    assert {each.value for each in holes.slices} == {"missing", "1.0"}


def test_a_column_of_numbers_is_no_group() -> None:
    with pytest.raises(BatchError, match="column 'number' of a slice gate has 1,000 values") as caught:
        judge(SliceGate(slice="number", metric="roc_auc", min=0.1), challenger(), "roc_auc")
    assert caught.value.expected == "at most 200: groups"


def evaluation(judgements: tuple[Judgement, ...], **changes: Any) -> Evaluation:
    whole = Evaluation(
        version="2",
        champion="1",
        metric="roc_auc",
        holdout=Part("holdout", slice(0, 1000), "2013-06-01T00:00:00Z", "2013-06-14T00:00:00Z"),
        figures={"challenger": {"roc_auc": 0.75}, "champion": {"roc_auc": 0.7}},
        gain=gain(0.03),
        judgements=judgements,
    )
    return replace(whole, **changes)


def test_the_summary_tells_gain_and_interval() -> None:
    good, bad = Judgement("a", 1.0, ">= 0", True), Judgement("b", 0.2, ">= 0.5", False, "why")
    found = evaluation((good, bad))
    assert found.summary == (
        "version 2 against champion 1: roc_auc 0.7500 against 0.7000, gain +0.0500 (+0.0300 to +0.1000 at 95%) "
        "on 1,000 rows; 1 of 2 gates hold"
    )
    assert found.failure == "b is 0.2000 (why), expected >= 0.5"
    assert not found.passed
    alone = evaluation((good,), champion=None, gain=None, figures={"challenger": {"roc_auc": 0.75}})
    assert alone.summary == "version 2, no champion to beat: roc_auc 0.7500 on 1,000 rows; 1 of 1 gates hold"
    assert alone.failure is None
    assert alone.outputs()["gain"] is None


def test_the_worst_slices_are_shown_whichever_way_the_metric_runs() -> None:
    slices = tuple(Slice(name, 500, value, value != 0.1) for name, value in (("a", 0.7), ("b", 0.9), ("c", 0.1)))
    auc = Judgement("roc_auc by x", 0.7, ">= 0.6", True, "", slices)
    loss = Judgement("log_loss by x", 0.9, "<= 1", True, "", slices, lower_is_better=True)
    found = evaluation((auc, loss)).outputs()["slices"]
    assert [(each["gate"], each["slice"], each["value"]) for each in found] == [
        ("roc_auc by x", "a", 0.7),
        ("roc_auc by x", "b", 0.9),
        ("log_loss by x", "b", 0.9),
        ("log_loss by x", "a", 0.7),
    ]
    many = tuple(Slice("value " + "x" * 50, 500, 0.5, True) for _ in range(50))
    several = tuple(Judgement(f"roc_auc by {n}", 0.5, ">= 0", True, "", many) for n in range(50))
    assert len(json.dumps(evaluation(several).outputs())) < 3000


def test_gates_fit_the_tag_and_the_result_however_many_there_are() -> None:
    many = tuple(Judgement(f"gate {n} " + "x" * 100, 0.5, ">= 0.7", n != 3, "note " * 10) for n in range(60))
    found = evaluation(many)
    assert len(json.dumps(found.gates(MAX_TAG))) <= MAX_TAG
    outputs = json.dumps(found.outputs())
    assert len(outputs) < 3000
    assert "gate 3 " in outputs  # what failed is kept
