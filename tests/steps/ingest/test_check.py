"""`perennial check` finds what stands against a run before one is started, and all of it at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from perennial_spec.canvas import Canvas
from perennial_steps.check import Finding, check_pipeline

BETWEEN = "expect_column_values_to_be_between"


def errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "error"]


@pytest.fixture
def check(data_room):
    """Writes the pipeline with some events, checks it and gives the findings."""

    def run(*, sources: bool = True, rows: int = 30, **parts: Any) -> list[Finding]:
        pipeline = data_room.pipeline(**parts)
        data_room.write("2024-01", rows)
        return check_pipeline(pipeline, data_room.platform, sources=sources)

    return run


def the_error(findings: list[Finding], *words: str) -> Finding:
    (finding,) = errors(findings)
    for word in words:
        assert word in str(finding)
    return finding


def test_a_good_pipeline_has_no_errors_and_is_told_of_its_missing_canvas(check) -> None:
    (finding,) = check(expectations=[{BETWEEN: {"column": "x", "min_value": 0}}])
    assert finding.level == "warning"
    assert "there is no canvas" in finding.what
    assert finding.where.endswith("pipeline.yaml")


def test_a_canvas_is_enough(check) -> None:
    assert check(canvas=dict.fromkeys(Canvas.model_fields, "said")) == []


def test_nothing_lands_and_nothing_is_written(check, data_room) -> None:
    before = sorted(data_room.root.rglob("*"))
    check()
    assert set(data_room.root.rglob("*")) - set(before) == {
        data_room.root / "pipelines",
        data_room.root / "pipelines/demo",
        data_room.root / "pipelines/demo/features.py",
        data_room.root / "pipelines/demo/pipeline.yaml",
        data_room.events / "2024-01.csv",
    }


def test_every_wrong_expectation_is_found_not_only_the_first(check) -> None:
    found = errors(
        check(
            expectations=[
                {"expect_column_value_to_be_between": {"column": "x"}},
                {BETWEEN: {"column": "xs", "min_value": 1}},
                {BETWEEN: {"column": "x", "minimum": 1}},
            ]
        )
    )
    assert [finding.what.split(";")[0] for finding in found] == [
        "there is no expectation named 'expect_column_value_to_be_between'",
        f"{BETWEEN} names the column 'xs', which the data does not have",
        f"{BETWEEN}: argument 'minimum': extra fields not permitted",
    ]
    for finding in found:
        file, line = finding.where.split(":")
        assert Path(file).read_text().splitlines()[int(line) - 1].strip()


def test_without_the_sources_columns_are_not_judged(check) -> None:
    found = check(sources=False, expectations=[{BETWEEN: {"column": "xs", "min_value": 1}}], query="SELEC 1")
    the_error(found, "features.sql:1: ", "syntax error")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"query": "SELECT *\nFROM evnts"}, ["features.sql:2: ", "evnts does not exist"]),
        ({"query": "SELECT * REPLACE (place::INTEGER AS place) FROM events"}, ["fails on this data", "'a'"]),
        ({"data": {"timestamp": "att"}}, ["data.timestamp names the column 'att'", "did you mean 'at'?"]),
        ({"data": {"exclude": ["plcae"]}}, ["data.exclude names the column 'plcae'", "did you mean 'place'?"]),
        ({"data": {"redact": {"place": "hash"}}}, ["PERENNIAL_REDACT_KEY is not set"]),
        (
            {"evaluation": {"metric": "roc_auc", "gates": [{"slice": "plaec", "metric": "roc_auc", "min": 0.5}]}},
            ["a gate names the column 'plaec'", "did you mean 'place'?"],
        ),
        (
            {"monitoring": {"drift": {"ignore": ["plase"]}}},
            ["monitoring.drift.ignore names the feature 'plase'", "did you mean 'place'?"],
        ),
        (
            {"model": {"kind": "xgboost.classifier", "params": {"seed": 1}}},
            ["model.params.seed is set by the platform"],
        ),
        (
            {"features": "def features(columns):\n    return {'x': columns['xs']}\n"},
            ["features.py:2: ", "'xs'", "did you mean 'x'?"],
        ),
        ({"features": "def features(columns):\n    return {'x': columns['x'][1:]}\n"}, ["29 values for 30 rows"]),
        (
            {"features": "def features(columns):\n    return {'x': columns['x'] - columns['x'].mean()}\n"},
            ["features.py:1: ", "feature 'x' of row ", " is 0 alone and ", "among 30 rows", "into the query"],
        ),
        (
            {"features": "import numpy as np\ndef features(columns):\n    return {'x': np.gradient(columns['x'])}\n"},
            ["features.py:3: ", "fails on one row alone, and not on 30"],
        ),
        ({"features": "def features(columns:\n"}, ["features.py:1: ", "not valid Python"]),
        (
            {"features": "def feature(columns):\n    return {}\n"},
            ["there is no function 'features'; did you mean 'feature'?"],
        ),
        (
            {"features": "def features(columns):\n    return {'y': columns['late']}\n"},
            ["'late', which is not among the inputs"],
        ),
    ],
)
def test_what_a_run_would_end_with(
    check, monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], words: list[str]
) -> None:
    monkeypatch.delenv("PERENNIAL_REDACT_KEY", raising=False)
    the_error(check(**parts), *words)


RANKER: dict[str, Any] = {
    "model": {"kind": "xgboost.ranker", "group": "place"},
    "evaluation": {"metric": "ndcg", "gates": [{"metric": "ndcg", "min": 0.5}]},
    "features": "def features(columns):\n    return {'x': columns['x']}\n",
}


def test_a_ranker_is_checked_as_the_others(check) -> None:
    assert errors(check(**RANKER)) == []


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"model": RANKER["model"] | {"group": "plaec"}},
            ["model.group names the column 'plaec'", "did you mean 'place'?"],
        ),
        (
            {"features": "def features(columns):\n    return {'y': columns['place']}\n"},
            ["'place', which is not among the"],
        ),
        (
            {"model": RANKER["model"] | {"params": {"objective": "reg:squarederror"}}},
            ["'reg:squarederror' for a xgboost.ranker", "rank:ndcg, rank:pairwise, rank:map"],
        ),
    ],
)
def test_what_a_run_of_a_ranker_would_end_with(check, parts: dict[str, Any], words: list[str]) -> None:
    the_error(check(**RANKER | parts), *words)


def test_every_source_that_does_not_answer_is_found(check) -> None:
    sources = {
        "events": "${LAKE}/events/*.csv",
        "planes": "${LAKE}/planes/*.parquet",
        "weather": "postgresql://me@127.0.0.1:1/lake#weather",
        "yields": "${NOWHERE}/x.csv",
    }
    found = errors(check(data={"sources": sources}, query="SELECT * FROM events"))
    assert [finding.what.split(":")[0] for finding in found] == [
        "source 'planes'",
        "source 'weather' does not answer",
        "source 'yields' needs the environment variable NOWHERE, which is not set",
    ]
    assert all("pipeline.yaml:" in finding.where for finding in found)


def test_a_query_without_rows_is_a_warning(check) -> None:
    found = check(rows=0, query='SELECT * REPLACE ("at"::TIMESTAMP AS "at", late::INTEGER AS late) FROM events')
    assert [finding.level for finding in found] == ["warning", "warning"]
    assert "gives no rows yet" in found[1].what


def test_great_expectations_is_only_needed_for_expectations(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    assert errors(check()) == []
