"""What an ingest refuses: each says what, where and what to do, and leaves the table as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial_spec.step import StepResult, Verdict


def refused(result: StepResult, kind: str, *words: str) -> str:
    assert result.failure is not None, result
    assert result.failure.type == kind
    final = kind in {"BatchError", "SpecError"}
    assert result.verdict is (Verdict.FAIL if final else Verdict.ERROR)
    for word in words:
        assert word in result.failure.message
    return result.failure.message


def landed(data_room) -> int:
    return DeltaTable(data_room.table).version()


# -- sources --


def test_no_file_matches(data_room) -> None:
    data_room.pipeline()
    refused(
        data_room.ingest(), "SourceError", "no file matches", "/lake/events/*.csv", "pipeline.yaml:8", "land the files"
    )
    assert not Path(data_room.table).exists()


def test_an_environment_variable_is_missing(data_room, monkeypatch: pytest.MonkeyPatch) -> None:
    data_room.pipeline(data={"sources": {"events": "${LAEK_OF_DEMO}/x.csv"}})
    monkeypatch.setenv("LAKE_OF_DEMO", "/somewhere-secret")
    message = refused(
        data_room.ingest(), "SourceError", "needs the environment variable LAEK_OF_DEMO", "pipeline.yaml:8"
    )
    assert "did you mean LAKE_OF_DEMO?" in message
    assert "somewhere-secret" not in message


def test_a_format_that_is_not_read(data_room) -> None:
    data_room.pipeline(data={"sources": {"events": "${LAKE}/events.xlsx"}})
    refused(data_room.ingest(), "SpecError", "${LAKE}/events.xlsx", ".csv, .json or .parquet", "pipeline.yaml:8")


def test_a_file_that_cannot_be_read_is_named(data_room) -> None:
    data_room.pipeline(data={"sources": {"events": "${LAKE}/events/*.parquet"}})
    duckdb.execute(f"COPY (SELECT 1 AS id) TO '{data_room.events}/good.parquet'")
    (data_room.events / "half.parquet").write_bytes((data_room.events / "good.parquet").read_bytes()[:50])
    refused(data_room.ingest(), "SourceError", "events/half.parquet: source 'events' cannot be read")


def test_a_file_that_breaks_off_in_the_middle_is_named(data_room) -> None:
    data_room.pipeline(data={"sources": {"events": "${LAKE}/events/*.parquet"}})
    select = "SELECT range AS id, TIMESTAMP '2024-01-01' AS \"at\", md5(range::VARCHAR) AS x, 'a' AS place, range % 2 AS late "
    select += "FROM range({})"
    for name, rows in (("a", 10), ("b", 100_000)):
        duckdb.execute(f"COPY ({select.format(rows)}) TO '{data_room.events}/{name}.parquet' (COMPRESSION zstd)")
    broken = data_room.events / "b.parquet"
    content = bytearray(broken.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = b"\xff" * 4000
    broken.write_bytes(content)
    refused(data_room.ingest(), "SourceError", "events/b.parquet: source 'events' cannot be read")
    assert not Path(data_room.table).exists()


def test_a_csv_whose_rows_do_not_fit_its_header_is_named(data_room) -> None:
    data_room.pipeline()
    data_room.write("2024-01", 3)
    (data_room.events / "2024-02.csv").write_bytes(b"id,at\n\xff\xfe\x00\x01,2024\n")
    refused(data_room.ingest(), "SourceError", "2024-02.csv: source 'events' cannot be read")


def test_a_late_word_among_numbers_is_told(data_room) -> None:
    data_room.pipeline(query="SELECT * REPLACE (x::DOUBLE AS x) FROM events")
    data_room.write("2024-01", 3)
    data_room.write("2024-02", [*(f"{n},2024-02-01,{n},a,1" for n in range(30_000)), "30000,2024-02-01,many,a,1"])
    refused(data_room.ingest(), "BatchError", "the query fails on this data", "'many'")


def test_a_late_fraction_among_whole_numbers_is_a_number(data_room) -> None:
    data_room.pipeline()
    data_room.write("2024-01", [*(f"{n},2024-01-01,{n},a,1" for n in range(30_000)), "30000,2024-01-01,1.5,a,1"])
    assert data_room.ingest().verdict is Verdict.PASS


def test_a_delta_source_that_is_none(data_room) -> None:
    data_room.pipeline(data={"sources": {"events": "delta:${LAKE}/events"}})
    refused(data_room.ingest(), "SourceError", "Delta table", "pipeline.yaml:8")


# -- the query --


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT * FROM events;\nSELECT 2", ["features.sql: the query has 2 statements", "exactly one SELECT"]),
        ("-- nothing\n", ["features.sql: the query is empty"]),
        ("DROP TABLE events", ["the query is no SELECT but DROP"]),
        ("COPY events TO 'x.csv'", ["the query is no SELECT but COPY"]),
        ("SELECT *\nFROM\n  evnts", ["features.sql:3: ", "evnts does not exist", "sources: events"]),
        (
            "-- a comment first\n\nSELECT\n  id,\n  plaec\nFROM events",
            ["features.sql:5: ", '"plaec" not found', "place"],
        ),
        ("SELECT id,,\nFROM events", ["features.sql:1: ", "syntax error"]),
    ],
)
def test_a_query_that_is_not_one_good_select(data_room, query: str, words: list[str]) -> None:
    data_room.pipeline(query=query)
    data_room.write()
    refused(data_room.ingest(), "SpecError", *words)


def test_a_query_that_fails_on_the_data(data_room) -> None:
    data_room.pipeline(query="SELECT * REPLACE (place::INTEGER AS place) FROM events")
    data_room.write()
    refused(data_room.ingest(), "BatchError", "features.sql: the query fails on this data", "'a'", "TRY_CAST")


def test_a_query_does_not_see_the_variables_of_the_process(data_room) -> None:
    data_room.pipeline(query="SELECT * FROM landed, events")
    data_room.write()
    refused(data_room.ingest(), "SpecError", "landed does not exist")


def test_a_query_that_needs_more_memory_than_the_step_has(data_room) -> None:
    data_room.pipeline(
        query="SELECT id, at, late, list(hash(r)) OVER ()::VARCHAR AS x FROM events, range(3000000) t(r)",
        resources={"ingest": {"memory": "64Mi"}},
    )
    data_room.write()
    result = data_room.ingest()
    assert result.failure is not None
    assert result.failure.type in {"PlatformError", "SpecError"}


# -- columns and types --


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"timestamp": "att"}, ["data.timestamp names the column 'att'", "did you mean 'at'?"]),
        ({"entity": "idd"}, ["data.entity names the column 'idd'", "did you mean 'id'?"]),
        ({"label": {"column": "lat"}}, ["data.label names the column 'lat'", "did you mean 'late'?"]),
        ({"exclude": ["plcae"]}, ["data.exclude names the column 'plcae'", "did you mean 'place'?"]),
        ({"sensitive": ["plcae"]}, ["data.sensitive names the column 'plcae'", "did you mean 'place'?"]),
        ({"redact": {"plcae": "drop"}}, ["data.redact names the column 'plcae'", "did you mean 'place'?"]),
    ],
)
def test_a_column_that_is_not_there_names_the_nearest(data_room, data: dict, words: list[str]) -> None:
    data_room.pipeline(data=data)
    data_room.write()
    refused(data_room.ingest(), "BatchError", "pipeline.yaml:", "one of id, at, x, place, late", *words)


def test_a_column_that_the_query_already_left_out_may_be_excluded(data_room) -> None:
    data_room.pipeline(query="SELECT * EXCLUDE (x) FROM events", data={"exclude": ["x"]})
    data_room.write()
    assert data_room.ingest().verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [
        (
            "SELECT * REPLACE (at::VARCHAR AS at) FROM events",
            "xgboost.classifier",
            ["'at' has type VARCHAR", "strptime(at"],
        ),
        (
            "SELECT * REPLACE (place AS late) FROM events",
            "xgboost.classifier",
            ["'late' has type VARCHAR", "(delay > 15)"],
        ),
        ("SELECT * REPLACE (late = 1 AS late) FROM events", "xgboost.regressor", ["has type BOOLEAN", "a number"]),
        (
            "SELECT *, [1, 2] AS tags FROM events",
            "xgboost.classifier",
            ["'tags' has type INTEGER[]", "data.exclude: [tags]"],
        ),
        ("SELECT *, 1 AS _partition FROM events", "xgboost.classifier", ["'_partition'", "another name"]),
        ("SELECT * REPLACE (late + 1 AS late) FROM events", "xgboost.classifier", ["neither 0 nor 1 in 10 rows", "2"]),
        (
            "SELECT * REPLACE (late + 0.25 AS late) FROM events",
            "xgboost.classifier",
            ["neither 0 nor 1 in 30 rows", "0.25"],
        ),
    ],
)
def test_a_wrong_type(data_room, query: str, kind: str, words: list[str]) -> None:
    metric = "roc_auc" if kind == "xgboost.classifier" else "rmse"
    evaluation = {"metric": metric, "gates": [{"metric": metric, "max": 1}]}
    data_room.pipeline(
        query=query.replace("at::", '"at"::').replace("AS at)", 'AS "at")'), model={"kind": kind}, evaluation=evaluation
    )
    data_room.write()
    refused(data_room.ingest(), "BatchError", *words)


RANKER: dict[str, Any] = {
    "model": {"kind": "xgboost.ranker", "group": "place"},
    "evaluation": {"metric": "ndcg", "gates": [{"metric": "ndcg", "min": 0}]},
}


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("late + 0.5", ["'late' is no grade of relevance in 30 rows, for example 0.5", "whole numbers from 0 to 31"]),
        ("late - 1", ["no grade of relevance in 20 rows, for example -1", "CASE WHEN"]),
        ("late * 32", ["no grade of relevance in 10 rows, for example 32"]),
        ("place", ["'late' has type VARCHAR", "the grade of relevance"]),
    ],
)
def test_a_label_that_is_no_grade(data_room, label: str, words: list[str]) -> None:
    data_room.pipeline(query=f"SELECT * REPLACE ({label} AS late) FROM events", **RANKER)
    data_room.write()
    refused(data_room.ingest(), "BatchError", *words)


@pytest.mark.parametrize("label", ["late * 31", "late = 1"])
def test_whole_numbers_and_booleans_are_grades(data_room, label: str) -> None:
    data_room.pipeline(query=f"SELECT * REPLACE ({label} AS late) FROM events", **RANKER)
    data_room.write()
    assert data_room.ingest().failure is None


# -- rows --


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], ["the batch is empty"]),
        (["1,2024-01-01,1,a,", "2,2024-01-02,1,a,"], ["data.label: 'late' is null in all 2 rows"]),
        (["1,2024-01-01,1,a,1", "2,,1,a,0"], ["data.timestamp: 'at' is null in 1 of 2 rows"]),
        (["1,2024-01-01,1,a,1", ",2024-01-02,1,a,0"], ["data.entity: 'id' is null in 1 of 2 rows"]),
        ([f"1,2024-01-0{n},1,a,1" for n in range(1, 6)], ["data.entity: 'id' has 1 values in 5 rows: it is no key"]),
        (
            ["1,2024-01-01,1,a,1", *(f"{n},2024-02-01,1,a," for n in range(2, 22))],
            ["'late' is null in all 20 rows of 2024-02", "data.label.arrives_after"],
        ),
    ],
    ids=["empty", "unlabelled", "null timestamp", "null entity", "repeated entity", "unlabelled month"],
)
def test_rows_that_must_not_be_used(data_room, rows: list[str], words: list[str]) -> None:
    data_room.pipeline(query='SELECT * REPLACE ("at"::TIMESTAMP AS "at", late::INTEGER AS late) FROM events')
    data_room.write("2024-01", rows)
    refused(data_room.ingest(), "BatchError", *words)
    assert not Path(data_room.table).exists()


def test_rows_without_any_timestamp(data_room) -> None:
    data_room.pipeline(query='SELECT * REPLACE (NULL::TIMESTAMP AS "at") FROM events')
    data_room.write()
    refused(data_room.ingest(), "BatchError", "data.timestamp: 'at' is null in 30 of 30 rows")


def test_a_month_whose_labels_have_not_arrived_yet_lands(data_room) -> None:
    data_room.pipeline(data={"label": {"column": "late", "arrives_after": "40000d"}})
    data_room.write("2024-01", ["1,2024-01-01,1,a,1", *(f"{n},2024-02-01,1,a," for n in range(2, 22))])
    assert data_room.ingest().verdict is Verdict.PASS


# -- between batches --


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("id,at,x,place,late", "a,2024-02-01,north,a,1", ["column 'x' was DOUBLE and is VARCHAR"]),
        (
            "id,at,xx,place,late",
            "a,2024-02-01,1.5,a,1",
            ["column 'xx' (DOUBLE) is new", "column 'x' is gone (is it 'xx' now?)"],
        ),
    ],
)
def test_columns_that_change_between_batches(data_room, header: str, row: str, words: list[str]) -> None:
    data_room.pipeline()
    old = data_room.write("2024-01", 3)
    data_room.ingest()
    old.unlink()
    data_room.write("2024-02", [row], header=header)
    refused(data_room.ingest(), "BatchError", "the columns have changed since the last batch", *words)
    assert landed(data_room) == 0


def test_a_table_that_no_ingest_has_made_is_left_alone(data_room) -> None:
    data_room.pipeline()
    data_room.write()
    write_deltalake(data_room.table, duckdb.sql("SELECT 1 AS a").to_arrow_table())
    refused(
        data_room.ingest(),
        "PlatformError",
        "a Delta table that no ingest has made",
        data_room.table,
        "move the table away",
    )
    assert landed(data_room) == 0


# -- redaction --


@pytest.mark.parametrize(("key", "words"), [("", "is not set"), ("short", "is too short")])
def test_a_hash_needs_a_key(data_room, monkeypatch: pytest.MonkeyPatch, key: str, words: str) -> None:
    monkeypatch.setenv("PERENNIAL_REDACT_KEY", key)
    data_room.pipeline(data={"redact": {"place": "hash"}})
    data_room.write()
    refused(data_room.ingest(), "SpecError", f"PERENNIAL_REDACT_KEY {words}", "openssl rand -hex 32")


def test_a_timestamp_cannot_be_hashed(data_room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_REDACT_KEY", "0123456789abcdef")
    data_room.pipeline(data={"redact": {"at": "hash"}})
    data_room.write()
    refused(data_room.ingest(), "SpecError", "data.redact hashes 'at', which is data.timestamp")


def test_an_error_in_the_query_does_not_tell_the_key_nor_values(
    data_room, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("PERENNIAL_REDACT_KEY", "0123456789abcdef")
    data_room.pipeline(query="SELECT * REPLACE (place::INTEGER AS x) FROM events", data={"redact": {"place": "hash"}})
    data_room.write()
    text = refused(data_room.ingest(), "BatchError", "the query fails on this data") + caplog.text
    assert "0123456789abcdef" not in text
    assert b"0123456789abcdef".hex() not in text.lower()
    assert "'a'" not in text  # nor the values that it was to hide
