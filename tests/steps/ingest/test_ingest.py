"""What an ingest lands: versions, partitions, columns, and nothing twice."""

from __future__ import annotations

import hashlib
import hmac
import sys
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from perennial_spec.step import StepResult, Verdict
from perennial_steps.table import PARTITION, read_state, read_window

KEY = "0123456789abcdef-a-test-key"


def passed(result: StepResult) -> dict[str, Any]:
    assert result.verdict is Verdict.PASS, result.failure
    return result.outputs


def rows(uri: str, version: int | None = None) -> list[dict[str, Any]]:
    table = DeltaTable(uri, version=version).to_pyarrow_table()
    return sorted(table.to_pylist(), key=lambda row: str(row["id"]))


def test_each_month_lands_as_one_version(data_room) -> None:
    data_room.pipeline()
    data_room.write("2024-01", 30)
    data_room.write("2024-02", 20)
    out = passed(data_room.ingest())
    assert out == {
        "data_uri": data_room.table,
        "data_version": 1,
        "rows": 50,
        "landed": ["2024-01", "2024-02"],
        "first": "2024-01-01T00:00:00+00:00",
        "last": "2024-02-01T19:00:00+00:00",
    }
    assert len(rows(data_room.table, 0)) == 30
    assert len(rows(data_room.table, 1)) == 50


def test_running_twice_lands_nothing_new_and_gives_the_same_version(data_room, monkeypatch: pytest.MonkeyPatch) -> None:
    data_room.pipeline()
    data_room.write()
    first = passed(data_room.ingest())
    monkeypatch.setitem(sys.modules, "duckdb", None)  # unchanged sources are not even read
    assert passed(data_room.ingest()) == first | {"landed": []}
    assert DeltaTable(data_room.table).version() == 0


def test_a_file_that_was_only_touched_lands_nothing(data_room) -> None:
    data_room.pipeline()
    file = data_room.write()
    first = passed(data_room.ingest())
    file.write_text(file.read_text())
    assert passed(data_room.ingest()) == first | {"landed": []}


def test_only_the_partition_that_changed_lands_again_and_the_old_version_stays_as_it_was(data_room) -> None:
    data_room.pipeline()
    data_room.write("2024-01", 3)
    data_room.write("2024-02", 3)
    data_room.ingest()
    data_room.write("2024-01", 4)
    out = passed(data_room.ingest())
    assert (out["landed"], out["data_version"], out["rows"]) == (["2024-01"], 2, 7)
    assert len(rows(data_room.table, 1)) == 6
    assert len(rows(data_room.table, 2)) == 7


def test_rows_in_another_order_are_the_same_content(data_room) -> None:
    data_room.pipeline()
    file = data_room.write()
    data_room.ingest()
    header, *lines = file.read_text().splitlines()
    file.write_text("\n".join([header, *reversed(lines)]) + "\n")
    assert passed(data_room.ingest())["landed"] == []


def test_partitions_that_left_the_sources_stay_in_the_table(data_room) -> None:
    data_room.pipeline()
    old = data_room.write("2024-01", 3)
    data_room.ingest()
    old.unlink()
    data_room.write("2024-02", 3)
    out = passed(data_room.ingest())
    assert (out["landed"], out["rows"]) == (["2024-02"], 6)


@pytest.mark.parametrize(("grain", "names"), [("day", ["2024-01-01", "2024-01-02"]), ("year", ["2024"])])
def test_the_grain_of_partitions_is_the_specs(data_room, grain: str, names: list[str]) -> None:
    data_room.pipeline(data={"partition_by": [grain]})
    data_room.write("2024-01", 30)
    assert passed(data_room.ingest())["landed"] == names


def test_another_grain_writes_the_whole_table_anew_in_one_version(data_room) -> None:
    data_room.pipeline()
    data_room.write("2024-01", 30)
    data_room.ingest()
    data_room.pipeline(data={"partition_by": ["day"]})
    out = passed(data_room.ingest())
    assert (out["data_version"], out["rows"], out["landed"]) == (1, 30, ["2024-01-01", "2024-01-02"])
    assert {row[PARTITION] for row in rows(data_room.table)} == {"2024-01-01", "2024-01-02"}


def test_another_grain_never_loses_rows_that_the_sources_no_longer_have(data_room) -> None:
    data_room.pipeline(data={"partition_by": ["day"]})
    data_room.write("2024-01", 30)
    data_room.ingest()
    data_room.pipeline()
    data_room.write("2024-01", ["9,2024-01-02 05:00:00,7,a,1"])
    result = data_room.ingest()
    assert result.verdict is Verdict.FAIL
    assert "would lose them" in result.failure.message
    assert len(rows(data_room.table)) == 30


def test_timestamps_are_stored_as_utc_microseconds_and_numbers_in_one_width(data_room) -> None:
    query = """SELECT id, late, TIMESTAMPTZ '2024-01-01 12:00:00+02:00' AS "at", "at"::DATE AS day, 1::UTINYINT AS small,
        1.5::FLOAT AS single, 2.25::DECIMAL(9, 2) AS price, sum(1) OVER () AS big, 'a'::ENUM('a', 'b') AS letter FROM events"""
    data_room.pipeline(query=query)
    data_room.write("2024-01", 3)
    passed(data_room.ingest())
    assert read_state(data_room.table).columns == {
        "id": "VARCHAR",
        "late": "BIGINT",
        "at": "TIMESTAMPTZ",
        "day": "TIMESTAMPTZ",
        "small": "BIGINT",
        "single": "DOUBLE",
        "price": "DOUBLE",
        "big": "DOUBLE",
        "letter": "VARCHAR",
    }
    row = rows(data_room.table)[0]
    assert row["at"].isoformat() == "2024-01-01T10:00:00+00:00"
    assert (row["single"], row["price"], row["big"], row["letter"]) == (1.5, 2.25, 3.0, "a")


def test_a_boolean_label_is_stored_as_zero_and_one_and_one_that_has_not_arrived_as_null(data_room) -> None:
    data_room.pipeline(query="SELECT * REPLACE (CASE WHEN x > 0.6 THEN NULL ELSE late = 1 END AS late) FROM events")
    data_room.write("2024-01", 3)
    passed(data_room.ingest())
    assert [row["late"] for row in rows(data_room.table)] == [1, 0, None]


def test_sources_are_joined_where_they_are(data_room) -> None:
    places = data_room.root / "lake" / "places.json"
    places.write_text('{"place": "a", "height": 3}\n{"place": "b", "height": 5}\n')
    duckdb.execute(f"COPY (SELECT 'c' AS place, 7 AS size) TO '{data_room.root}/lake/sizes.parquet'")
    data_room.pipeline(
        query="-- joins\nSELECT e.*, height, size FROM events e LEFT JOIN places USING (place)\n"
        "LEFT JOIN sizes USING (place); -- the end\n",
        data={
            "sources": {
                "events": "${LAKE}/events/*.csv",
                "places": "../../lake/places.json",
                "sizes": data_room.root.as_uri() + "/lake/sizes.parquet",
            }
        },
    )
    data_room.write("2024-01", 3)
    passed(data_room.ingest())
    assert [(row["height"], row["size"]) for row in rows(data_room.table)] == [(3, None), (5, None), (None, 7)]


def test_a_delta_table_is_a_source_and_its_version_tells_when_it_changed(data_room) -> None:
    data_room.pipeline()
    data_room.write("2024-01", 3)
    passed(data_room.ingest())
    source = str(data_room.root / "lake" / "delta")
    (data_room.root / "store" / "demo" / "data").rename(source)
    data_room.pipeline(
        query=f"SELECT * EXCLUDE ({PARTITION}) FROM events", data={"sources": {"events": "delta:${LAKE}/delta"}}
    )
    assert passed(data_room.ingest())["rows"] == 3
    assert passed(data_room.ingest())["landed"] == []
    DeltaTable(source).delete("x = 0.5")
    assert passed(data_room.ingest())["rows"] == 2


def test_excluded_columns_are_not_stored_and_sensitive_ones_are(data_room) -> None:
    data_room.pipeline(data={"exclude": ["x"], "sensitive": ["place"]})
    data_room.write("2024-01", 3)
    passed(data_room.ingest())
    assert set(rows(data_room.table)[0]) == {"id", "at", "place", "late", PARTITION}


def test_redacted_columns_are_dropped_or_hashed_with_the_key_before_anything_is_stored(
    data_room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_REDACT_KEY", KEY)
    data_room.pipeline(data={"redact": {"place": "hash", "x": "drop"}})
    data_room.write("2024-01", ["1,2024-01-01,77.25,Zürich,1", "2,2024-01-01,77.25,,0"])
    passed(data_room.ingest())
    expected = hmac.new(KEY.encode(), "Zürich".encode(), hashlib.sha256).hexdigest()
    assert [row["place"] for row in rows(data_room.table)] == [expected, None]
    stored = b"".join(path.read_bytes() for path in (data_room.root / "store").rglob("*") if path.is_file())
    assert not [word for word in ("Zürich", "77.25", KEY) if word.encode() in stored]
    assert "x" not in rows(data_room.table)[0]


def test_another_redaction_key_changes_what_is_stored(data_room, monkeypatch: pytest.MonkeyPatch) -> None:
    data_room.pipeline(data={"redact": {"place": "hash"}})
    data_room.write("2024-01", 3)
    monkeypatch.setenv("PERENNIAL_REDACT_KEY", KEY)
    passed(data_room.ingest())
    monkeypatch.setenv("PERENNIAL_REDACT_KEY", KEY * 4)
    assert passed(data_room.ingest())["landed"] == ["2024-01"]
    expected = hmac.new((KEY * 4).encode(), b"a", hashlib.sha256).hexdigest()
    assert rows(data_room.table)[0]["place"] == expected


def test_of_repeated_entities_the_newest_row_stays(data_room) -> None:
    data_room.pipeline()
    data_room.write("2024-01", ["1,2024-01-01,1,a,0", "1,2024-02-01,2,a,1", "2,2024-01-02,3,b,0", "3,2024-01-03,4,c,1"])
    result = data_room.ingest()
    passed(result)
    assert [(row["id"], row["x"]) for row in rows(data_room.table)] == [(1, 2.0), (2, 3.0), (3, 4.0)]
    assert result.metrics["duplicate_rows"] == 1.0


def test_a_changed_query_may_change_the_columns_and_writes_the_table_anew(data_room) -> None:
    data_room.pipeline(query="SELECT * FROM events")
    data_room.write("2024-01", 3)
    data_room.write("2024-02", 3)
    passed(data_room.ingest())
    data_room.pipeline(query="SELECT * EXCLUDE (x), x::VARCHAR || '!' AS y FROM events")
    out = passed(data_room.ingest())
    assert (out["data_version"], out["landed"], out["rows"]) == (2, ["2024-01", "2024-02"], 6)
    assert list(read_state(data_room.table).columns) == ["id", "at", "place", "late", "y"]
    assert "x" in rows(data_room.table, 1)[0]


def test_integers_land_in_a_column_of_floats(data_room) -> None:
    data_room.pipeline()
    old = data_room.write("2024-01", 3)
    passed(data_room.ingest())
    old.unlink()
    data_room.write("2024-02", ["9,2024-02-01,7,a,1"])
    data_room.pipeline(query="SELECT id::VARCHAR AS id, * EXCLUDE (id) FROM events")
    passed(data_room.ingest())
    assert read_state(data_room.table).columns["x"] == "DOUBLE"


def test_what_others_did_to_the_table_is_seen(data_room) -> None:
    data_room.pipeline()
    file = data_room.write("2024-01", 3)
    passed(data_room.ingest())
    DeltaTable(data_room.table).delete("x = 0.5")
    file.touch()
    assert passed(data_room.ingest())["landed"] == ["2024-01"]
    assert len(rows(data_room.table)) == 3


def test_maintenance_of_the_table_is_no_change(data_room) -> None:
    data_room.pipeline()
    file = data_room.write("2024-01", 3)
    passed(data_room.ingest())
    DeltaTable(data_room.table).optimize.compact()
    file.touch()
    assert passed(data_room.ingest())["landed"] == []


def test_digests_of_another_algorithm_are_not_compared(data_room, monkeypatch: pytest.MonkeyPatch) -> None:
    data_room.pipeline()
    file = data_room.write("2024-01", 3)
    passed(data_room.ingest())
    file.touch()
    monkeypatch.setattr("perennial_steps.ingest_landing.algorithm", lambda: "duckdb-999")
    assert passed(data_room.ingest())["landed"] == []


def test_a_window_of_a_version_is_read_without_the_partition_column(data_room) -> None:
    from datetime import UTC, datetime

    data_room.pipeline()
    data_room.write("2024-01", 30)
    data_room.write("2024-02", 3)
    passed(data_room.ingest())
    since = datetime(2024, 1, 31, tzinfo=UTC)
    assert read_window(data_room.table, 1, "at", since=since).num_rows == 3
    assert read_window(data_room.table, 1, "at").column_names == ["id", "at", "x", "place", "late"]
    assert read_window(data_room.table, 0, "at", columns=["x"]).shape == (30, 1)
