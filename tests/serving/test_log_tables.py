"""What is in the tables: columns by the contract, added where an older table lacks them, and each segment once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial_serving.log_entries import Block, Label, encode_rows
from perennial_serving.log_frames import SCORES, Segment
from perennial_serving.tables import Tables
from perennial_spec import logs
from perennial_spec.platform import Platform


def segment(sequence: int, *entries: Any, table: str = logs.PREDICTIONS) -> Segment:
    rows = sum(map(len, entries))
    data = [encode_rows(table, each) if table == logs.LABELS else each.encoded() for each in entries]
    return Segment(sequence, "p", table, rows, data)


def block(name: str, scores: Any = (0.5,), entities: list[str | None] | None = None) -> Block:
    values = np.array(scores, dtype=np.float64)
    return Block([f"{name}-{n}" for n in range(len(values))], entities, "1", values, False, 1, {})


def read(store: Path, table: str = logs.PREDICTIONS) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{store}/p/{table}").to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: str(row.get(logs.PREDICTION_ID)))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(Platform(store=str(tmp_path)), compact_commits=0)


def append(tables: Tables, *segments: Segment, log: str = "log") -> int:
    return tables.append("p", segments[0].table, log, segments)


def test_small_files_are_merged_after_so_many_appends(tmp_path: Path) -> None:
    tables = Tables(Platform(store=str(tmp_path)), compact_commits=4)
    for n in range(8):
        append(tables, segment(n, block(f"{n}")))
        append(tables, segment(n, [Label("e", 1.0, n)], table=logs.LABELS))
    for kind in (logs.PREDICTIONS, logs.LABELS):
        found = DeltaTable(f"{tmp_path}/p/{kind}")
        assert len(found.file_uris()) <= 2
        assert found.to_pyarrow_table().num_rows == 8


def test_segments_that_another_writer_of_this_log_has_committed_are_left_out(tmp_path: Path, tables: Tables) -> None:
    append(tables, segment(1, block("a")), segment(3, block("b")))
    follower = Tables(Platform(store=str(tmp_path)), 0)
    append(follower, segment(1, block("a")), segment(3, block("b")), segment(4, block("c")))
    append(follower, segment(5, block("d")))
    append(Tables(Platform(store=str(tmp_path)), 0), segment(1, block("e")), log="of another server")
    assert [row[logs.PREDICTION_ID] for row in read(tmp_path)] == ["a-0", "b-0", "c-0", "d-0", "e-0"]


def test_merging_small_files_does_not_make_a_table_forget_what_it_has(tmp_path: Path) -> None:
    tables = Tables(Platform(store=str(tmp_path)), compact_commits=2)
    for n in range(1, 5):
        append(tables, segment(n, block(f"{n}")))
    append(Tables(Platform(store=str(tmp_path)), 0), segment(4, block("4")), segment(5, block("5")))
    assert len(read(tmp_path)) == 5


def test_two_servers_append_to_one_table(tmp_path: Path) -> None:
    servers = [Tables(Platform(store=str(tmp_path)), compact_commits=3) for _ in range(2)]
    for n in range(6):
        for name, server in enumerate(servers):
            append(server, segment(n, block(f"{name}{n}")), log=f"server {name}")
    assert len(read(tmp_path)) == 12


def test_all_outputs_of_a_model_with_several_are_kept_beside_the_first(tmp_path: Path, tables: Tables) -> None:
    append(tables, segment(1, block("a", [0.1])))
    assert SCORES not in read(tmp_path)[0]
    append(tables, segment(2, block("b", [[0.2, 0.8], [0.5, float("nan")]])), segment(3, block("c", [0.3])))
    append(tables, segment(4, block("d", [0.4])))
    found = [(row[logs.SCORE], row[SCORES] and json.loads(row[SCORES])) for row in read(tmp_path)]
    assert found == [(0.1, None), (0.2, [0.2, 0.8]), (0.5, [0.5, None]), (0.3, None), (0.4, None)]


def test_a_table_with_fewer_columns_gets_the_new_ones(tmp_path: Path, tables: Tables) -> None:
    older = pa.table({logs.ENTITY: ["old"], logs.LABEL: [0.0]})
    write_deltalake(f"{tmp_path}/p/{logs.LABELS}", older)
    append(tables, segment(1, [Label("new", 1.0, 5)], table=logs.LABELS))
    found = {row[logs.ENTITY]: row for row in read(tmp_path, logs.LABELS)}
    assert found["old"][logs.AT] is None
    assert found["new"][logs.AT].timestamp() == 5e-6


def test_a_table_with_more_columns_than_this_version_knows_is_appended_to(tmp_path: Path, tables: Tables) -> None:
    write_deltalake(f"{tmp_path}/p/{logs.LABELS}", pa.table({logs.ENTITY: ["newer"], "unheard_of": [1]}))
    append(tables, segment(1, [Label("ours", 1.0, 5)], table=logs.LABELS))
    assert {row[logs.ENTITY]: row["unheard_of"] for row in read(tmp_path, logs.LABELS)} == {"newer": 1, "ours": None}


@dataclass(frozen=True)
class Reward:
    prediction_id: str
    reward: float
    at: int


def test_labels_are_whatever_has_columns_that_the_contract_names(
    tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, kind in (("prediction_id", "string"), ("reward", "double")):
        monkeypatch.setitem(logs.LABEL_COLUMNS, name, kind)
    append(tables, segment(1, [Label("e", 1.0, 5), Reward("id", 0.25, 6)], table=logs.LABELS))
    found = [(r[logs.ENTITY], r[logs.LABEL], r["prediction_id"], r["reward"]) for r in read(tmp_path, logs.LABELS)]
    assert sorted(found, key=str) == sorted([("e", 1.0, None, None), (None, None, "id", 0.25)], key=str)


def test_a_text_that_no_table_can_hold_is_stored_without_what_is_broken_in_it(tmp_path: Path, tables: Tables) -> None:
    assert append(tables, segment(1, block("a", [0.1, 0.2], ["half \ud800", None]))) == 0
    assert [row[logs.ENTITY] for row in read(tmp_path)] == ["half ?", None]


def test_a_segment_that_no_table_can_hold_does_not_hold_up_the_others(
    tmp_path: Path, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Segment(2, "p", logs.PREDICTIONS, 7, [b"\x00secret"])
    assert append(tables, segment(1, block("a")), broken, segment(3, block("b"))) == 7
    assert append(tables, Segment(4, "p", logs.PREDICTIONS, 7, [b"\x00"])) == 7
    assert len(read(tmp_path)) == 2
    assert "7 rows of p/predictions cannot be stored" in caplog.text
    assert "secret" not in caplog.text
