"""What goes from the server to the writer: any value that a request can bring comes out as JSON says it, or as text."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_serving.ids import prediction_ids
from perennial_serving.log_entries import Block, Noted, PredictionRows, sampled, share_of
from perennial_serving.log_frames import Ack, Segment, ack_of, frames, prediction_columns, segment_of
from perennial_serving.rows import Rows
from perennial_spec import logs
from perennial_spec.monitoring import Monitoring


def rows(columns: dict[str, Any]) -> PredictionRows:
    count = len(next(iter(columns.values())))
    ids = [f"id-{n}" for n in range(count)]
    return PredictionRows(ids, [None] * count, "1", np.zeros(count), False, 1, Rows(columns, count), tuple(columns))


def block(columns: dict[str, Any]) -> Block:
    count = len(next(iter(columns.values())))
    return Block([f"id-{n}" for n in range(count)], None, "1", np.zeros(count), False, 1, columns)


def inputs(entry: Any) -> list[Any]:
    found = prediction_columns([entry.encoded()])[logs.INPUTS]
    for text in found:
        text.encode()  # a table holds nothing else
    return [json.loads(text) for text in found]


def column(entry: Any, name: str = "x") -> list[Any]:
    return [row[name] for row in inputs(entry)]


def test_numbers_stay_numbers_what_is_missing_is_null_and_times_are_iso_in_utc() -> None:
    columns = {
        "distance": np.array([1.5, np.nan, np.inf]),
        "stops": np.array([1, -2, 2**62]),
        "direct": np.array([True, False, True]),
        "carrier": np.array(["UA", None, "é"], dtype=object),
        "departure": np.array(["2013-06-01T05:15", "NaT", "2013-06-01T05:15:00.25"], dtype="datetime64[us]"),
    }
    assert inputs(block(columns)) == [
        {"distance": 1.5, "stops": 1, "direct": True, "carrier": "UA", "departure": "2013-06-01T05:15:00Z"},
        {"distance": None, "stops": -2, "direct": False, "carrier": None, "departure": None},
        {"distance": None, "stops": 2**62, "direct": True, "carrier": "é", "departure": "2013-06-01T05:15:00.250000Z"},
    ]
    assert '"stops":1,' in prediction_columns([block(columns).encoded()])[logs.INPUTS][0]


@pytest.mark.parametrize("kind", ["<f4", ">f8", "<f2", "i1", ">i4", "u2", "<u8", "q", "longdouble"])
def test_every_kind_of_number_is_itself(kind: str) -> None:
    assert column(block({"x": np.array([1, 2, 120], dtype=kind)})) == [1, 2, 120]
    assert column(block({"x": np.arange(10, dtype=kind)[::3]})) == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["a", "ü"]), ["a", "ü"]),
        (np.array([b"a", b"\xff"]), ["a", "\ufffd"]),
        (
            np.array(["2013-01-01", "2013-01-02"], dtype="datetime64[D]"),
            ["2013-01-01T00:00:00Z", "2013-01-02T00:00:00Z"],
        ),
        (np.array([2**63 - 1, 0]).view("M8[us]"), [2**63 - 1, "1970-01-01T00:00:00Z"]),
        (np.array([1.0 + 2j]), ["(1+2j)"]),
        (list(np.array([1.5, 2.5])), [1.5, 2.5]),
        (list(np.array(["2013-01-01T00:00"], dtype="datetime64[us]")), ["2013-01-01T00:00:00Z"]),
        ((1, None, "a"), [1, None, "a"]),
        ([True, 1.5, {"a": [1]}, [2]], [True, 1.5, {"a": [1]}, [2]]),
        ([[1], [2]], [[1], [2]]),
        ([2**70, 1], [str(2**70), 1]),
        (["half \ud800", "whole"], ["half ?", "whole"]),
        ([{"half \ud800": 1}], ["{'half \\ud800': 1}"]),
        ([b"\xff", b"a"], ["\ufffd", "a"]),
        ([datetime(2013, 1, 1), 1], ["2013-01-01 00:00:00", 1]),
    ],
)
def test_every_other_value_is_kept(values: Any, expected: list[Any]) -> None:
    assert column(rows({"x": values})) == expected


def test_a_value_that_is_nested_too_deeply_for_json_is_text() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    (found,) = column(rows({"x": [deep]}))
    assert found == str(deep)


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(PLAIN | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.lists(JSON, min_size=1, max_size=5), st.text())
def test_what_json_can_say_comes_out_as_it_was_sent(values: list[Any], name: str) -> None:
    assert column(rows({name: values}), name) == values


def test_frames_are_found_however_they_are_cut() -> None:
    segments = [Segment(n, "p", logs.PREDICTIONS, n, [b"x" * n]) for n in range(20)]
    stream = b"".join(piece for segment in segments for piece in segment.pieces())
    for step in (1, 7, len(stream)):
        buffer, found = bytearray(), []
        for at in range(0, len(stream), step):
            buffer += stream[at : at + step]
            found += [segment_of(frame) for frame in frames(buffer)]
        assert found == segments
        assert not buffer
    ack = Ack("p", logs.LABELS, 7, 1)
    assert [ack_of(frame) for frame in frames(bytearray(ack.frame()))] == [ack]


def test_a_share_of_the_rows_is_drawn_whatever_they_are() -> None:
    ids = prediction_ids(4000, 1)
    assert sampled(ids, 1.0) is None
    for count in (1, 1000):
        mask = sampled(ids[:count], 0.0)
        assert mask is not None and not mask.any()
    quarter = sampled(ids, 0.25)
    assert quarter is not None and 850 < int(quarter.sum()) < 1150  # five standard deviations
    assert [bool(sampled([id_], 0.25)[0]) for id_ in ids[:100]] == quarter[:100].tolist()  # type: ignore[index]


@pytest.mark.parametrize("make", [block, rows])
def test_a_sample_has_what_belongs_together(make: Any) -> None:
    whole = make({"x": np.arange(4.0), "y": np.array(["a", "b", None, "d"], dtype=object)})
    assert whole.kept(None) is whole
    half = whole.kept(np.array([False, True, True, False]))
    assert (half.ids, len(half), len(half.scores)) == (["id-1", "id-2"], 2, 2)
    assert half.entities in (None, [None, None])
    assert inputs(half) == [{"x": 1.0, "y": "b"}, {"x": 2.0, "y": None}]


def test_the_share_is_the_specs_and_all_for_a_bundle_that_does_not_know_the_word() -> None:
    monitoring = Monitoring.model_validate({"log": {"share": "25%"}})
    assert share_of({"monitoring": monitoring.model_dump(mode="json")}) == 0.25
    assert share_of({"monitoring": {"drift": {}}}) == share_of({"monitoring": None}) == share_of({}) == 1.0


def test_encoding_is_fast_enough_for_the_event_loop() -> None:
    """The best of many tries, as the machine may be busy, with room for a slower one: measured are 7 and 10 us."""
    for count, limit in ((1, 30e-6), (32, 60e-6)):
        columns: dict[str, Any] = {f"f{n}": np.random.default_rng(n).random(count) for n in range(20)}
        entry = block({**columns, "c": np.array(["UA"] * count, dtype=object), "i": np.arange(count)})
        best = min(_seconds(entry) for _ in range(300))
        assert best < limit


def _seconds(entry: Block) -> float:
    start = time.perf_counter()
    entry.encoded()
    return time.perf_counter() - start


def noted() -> Noted:
    ends = np.array([7, 14, 23, 30], dtype=np.int32)
    labels = (b'"x":', None)
    return Noted([f"id-{n}" for n in range(4)], ["a", None, "c", "d"], "1", np.arange(4.0), False, 1, labels,
                 b'[1,"s"][2,"s"][3.5,"s"][4,"s"]', ends.tobytes())  # fmt: skip


def test_rows_in_the_words_of_the_request_become_objects_of_what_may_be_stored() -> None:
    found = prediction_columns([noted().encoded()])
    assert found[logs.INPUTS] == ['{"x":1}', '{"x":2}', '{"x":3.5}', '{"x":4}']
    assert found[logs.ENTITY] == ["a", None, "c", "d"]
    assert found[logs.SCORE] == [0, 1, 2, 3]


def test_a_sample_of_such_rows_has_what_belongs_together() -> None:
    half = prediction_columns([noted().kept(np.array([False, True, True, False])).encoded()])
    assert half[logs.PREDICTION_ID] == ["id-1", "id-2"]
    assert half[logs.ENTITY] == [None, "c"]
    assert half[logs.SCORE] == [1, 2]
    assert half[logs.INPUTS] == ['{"x":2}', '{"x":3.5}']
