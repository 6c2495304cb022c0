"""The C code between the socket and the trees: it does the plain case exactly as the Python code does, and leaves every other to it."""

from __future__ import annotations

import json
import math
import sys
import time
import uuid
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_features.encode import encode_all
from perennial_features.reference import Reference
from perennial_features.request import columns_from_rows
from perennial_features.schema import Feature, FeatureSchema, InputColumn
from perennial_native._rows import UNSEEN_BITS, Assembler, Bins, id_check, ids, objects, scan
from perennial_serving.bodies import Body, Layout
from perennial_serving.intake import Intake
from perennial_serving.scorer import bins_of
from perennial_spec.errors import RequestError

KINDS: dict[str, Any] = {"n": "number", "i": "integer", "b": "boolean", "t": "text", "m": "timestamp"}
SCHEMA = FeatureSchema(
    inputs=tuple(InputColumn(name=name, kind=kind, nullable=name in "nt") for name, kind in KINDS.items()), features=()
)
CAPACITY = 16

times = st.builds(
    lambda moment, fraction, zone: moment.isoformat(timespec=fraction) + zone,
    st.datetimes(min_value=datetime(2, 1, 2), max_value=datetime(9998, 12, 30)),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.sampled_from(["", "Z", "+00:00", "+05:30", "-08:00"]),
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    times,
    st.just([]),
    st.just({}),
    st.just("12"),
    st.sampled_from(
        [
            "2013-02-30T00:00:00Z",
            "2013-06-01",
            "20130601T051500Z",
            "2013-06-01T24:00:00Z",
            "2013-06-01T05:15:00.5Z",
            "2013-06-01T05:15Z",
        ]
    ),
)
plain = {
    "n": st.one_of(st.none(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False)),
    "i": st.integers(-(2**63), 2**63 - 1),
    "b": st.booleans(),
    "t": st.one_of(st.none(), st.text(max_size=8)),
    "m": st.one_of(st.none(), times),
}
plain_row = st.tuples(*(plain[name] for name in KINDS)).map(list)
any_row = st.tuples(*(st.one_of(plain[name], odd) for name in KINDS)).map(list)


def intake() -> Intake:
    return Intake(SCHEMA, "entity", ("sent_at",), CAPACITY)


def same(ours: Any, theirs: Any) -> bool:
    if ours.dtype != theirs.dtype:
        return False
    if ours.dtype.kind == "O":
        return bool(ours.tolist() == theirs.tolist())
    return ours.tobytes() == theirs.tobytes() or bool(np.array_equal(ours, theirs, equal_nan=ours.dtype.kind in "fM"))


def split_body(rows: list[list[Any]]) -> Body:
    return Body("split", rows, len(rows), Layout(list(KINDS)))


@given(st.lists(any_row, min_size=1, max_size=4))
def test_what_is_taken_is_what_the_explaining_code_makes_of_it(rows: list[list[Any]]) -> None:
    table = intake()
    if not table.take(split_body(rows), 0):
        return
    expected = columns_from_rows({name: [row[i] for row in rows] for i, name in enumerate(KINDS)}, SCHEMA)
    typed = table.typed(len(rows))
    for name in KINDS:
        assert same(typed[name], expected[name]), name


@given(st.lists(plain_row, min_size=1, max_size=4))
def test_plain_rows_are_taken_in_every_form(rows: list[list[Any]]) -> None:
    names = list(KINDS)
    forms = (
        split_body(rows),
        Body("records", [dict(zip(names, row, strict=True)) for row in rows], len(rows)),
        Body("columns", {name: [row[i] for row in rows] for i, name in enumerate(names)}, len(rows)),
    )
    tables = [intake() for _ in forms]
    for table, form in zip(tables, forms, strict=True):
        assert table.take(form, 3)
    for name in names:
        first = tables[0].typed(3 + len(rows))[name][3:]
        assert all(same(table.typed(3 + len(rows))[name][3:], first) for table in tables)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "12"), (0, True), (0, math.inf), (0, math.nan), (0, 10**400), (0, []),
        (1, None), (1, 1.0), (1, 2**63), (1, True), (1, "1"),
        (2, None), (2, 1), (2, "true"),
        (3, 7), (3, True), (3, {}),
        (4, 0), (4, "2013-02-30T00:00:00Z"), (4, "2013-06-01"), (4, "0001-01-01T00:00:00+05:00"), (4, "２013-06-01T05:15:00Z"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_explaining_code(place: int, value: Any) -> None:
    row: list[Any] = [1.0, 1, True, "a", "2013-06-01T05:15:00Z"]
    assert intake().take(split_body([row]), 0)
    row[place] = value
    assert not intake().take(split_body([row]), 0)


def test_a_column_may_be_left_out_only_where_training_saw_it_missing() -> None:
    row = {"i": 1, "b": True, "m": "2013-06-01T05:15:00Z"}
    table = intake()
    assert table.take(Body("records", [row], 1), 0)
    assert math.isnan(table.typed(1)["n"][0])
    assert table.typed(1)["t"][0] is None
    assert not table.take(Body("records", [{**row, "n": 1.0, "t": "a", "i": None}], 1), 0)
    del row["b"]
    assert not table.take(Body("records", [row], 1), 0)
    assert not table.take(Body("columns", {name: [value] for name, value in row.items()}, 1), 0)


def test_rows_beyond_the_room_or_of_another_width_are_not_taken() -> None:
    row = [1.0, 1, True, "a", None]
    table = intake()
    assert table.take(split_body([row] * CAPACITY), 0)
    assert not table.take(split_body([row] * (CAPACITY + 1)), 0)
    assert not table.take(split_body([row]), CAPACITY)
    assert not table.take(split_body([row[:-1]]), 0)
    assert not table.take(Body("split", [row, "no row"], 2, Layout(list(KINDS))), 0)
    assert not table.take(Body("records", [row], 1), 0)
    assert not table.take(Body("columns", {**{name: [None] for name in KINDS}, "i": [1, 2]}, 1), 0)


def test_entities_and_extra_columns_are_kept_as_they_were_sent() -> None:
    table = intake()
    row = {"i": 1, "b": True, "m": None, "entity": 7, "sent_at": "2013-06-01"}
    assert table.take(Body("records", [row, {**row, "entity": "x"}, {**row, "entity": None}], 3), 0)
    assert table.keys(3) == [7, "x", None]
    assert table.kept(3)["sent_at"].tolist() == ["2013-06-01"] * 3
    assert not table.take(Body("records", [{**row, "entity": 1.5}], 1), 0)


def test_columns_cannot_be_written_by_those_who_read_them() -> None:
    table = intake()
    assert table.take(split_body([[1.0, 1, True, "a", None]]), 0)
    with pytest.raises(ValueError, match="read-only"):
        table.typed(1)["n"][0] = 2


def test_texts_that_were_overwritten_are_let_go() -> None:
    table = intake()
    value = "x" * 1000
    before = sys.getrefcount(value)
    for _ in range(3):
        assert table.take(split_body([[1.0, 1, True, value, None]] * 4), 0)
    assert sys.getrefcount(value) == before + 4
    assert table.take(split_body([[1.0, 1, True, None, None]] * 4), 0)
    assert sys.getrefcount(value) == before


# -- rows as text --

spaces = st.sampled_from(["", " ", "\n ", "\t"])


def text_of(rows: list[list[Any]], space: str = "") -> bytes:
    def value(each: Any) -> str:
        return json.dumps(each, ensure_ascii=False)

    lists = f",{space}".join("[" + f"{space},{space}".join(map(value, row)) + "]" for row in rows)
    return f"[{space}{lists}{space}]{space}}}}}".encode(errors="surrogatepass")


def take_text(table: Intake, text: bytes, start: int = 0) -> int:
    return table.split_text(*table.plan(list(KINDS)), b"head" + text, 4, start)


@given(st.lists(any_row, min_size=1, max_size=4), spaces)
def test_text_is_taken_as_the_values_that_it_stands_for(rows: list[list[Any]], space: str) -> None:
    table = intake()
    taken = take_text(table, text_of(rows, space))
    if not taken:
        return
    assert taken == len(rows)
    expected = columns_from_rows({name: [row[i] for row in rows] for i, name in enumerate(KINDS)}, SCHEMA)
    for name in KINDS:
        assert same(table.typed(len(rows))[name], expected[name]), name


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63) + 1, 2**63 - 1))
def test_numbers_are_read_to_the_last_bit(number: float, whole: int) -> None:
    for text in (repr(number), f"{number:.17e}", f"{number:.3f}"):
        table = intake()
        taken = take_text(table, f'[[{text},{whole},true,"a",null]]}}}}'.encode())
        if taken:
            assert table.typed(1)["n"][0] == float(text)
            assert table.typed(1)["i"][0] == whole
        else:
            assert len(text) > 63 or text in {"-0.000", "-0"}


@pytest.mark.parametrize(
    "value",
    ["", "01", "+1", "1.", ".5", "1e", "1e+", "--1", "-0", "NaN", "Infinity", "1e400", "-1e999", "0x1", "1_0", "tru", "[1]", "{}",
     "1 2", "1,2"],
)  # fmt: skip
def test_text_that_is_no_plain_number_is_left_to_the_explaining_code(value: str) -> None:
    assert take_text(intake(), b'[[1.5,1,true,"a",null]]}}') == 1
    assert take_text(intake(), f'[[{value},1,true,"a",null]]}}}}'.encode()) == 0


@pytest.mark.parametrize(
    "text",
    [b"", b"[", b"[]}}", b"[[]]}}", b"x", b'[[1,1,true,"a",null]]', b'[[1,1,true,"a",null]]}', b'[[1,1,true,"a",null]]}}}',
     b'[[1,1,true,"a",null]],"index":[0]}}', b'[[1,1,true,"a",null],]}}', b'[[1,1,true,"a",null,]]}}', b'[[1,1,true,"a"]]}}',
     b'[[1,1,true,"a\\n",null]]}}', b'[[1,1,true,"a\n",null]]}}', b'[[1,1,true,"\xff",null]]}}', b'[[1,1,true,"a,null]]}}',
     b'[[1,1.0,true,"a",null]]}}', b'[[1,9223372036854775808,true,"a",null]]}}', b'[[1,1,True,"a",null]]}}'],
)  # fmt: skip
def test_text_that_is_not_plain_is_left_to_the_explaining_code(text: bytes) -> None:
    assert take_text(intake(), text) == 0


@given(st.binary(max_size=60))
def test_no_text_can_harm_it(noise: bytes) -> None:
    table = intake()
    whole = b'[[1,1,true,"a",null],[2,2,false,"b",null]]}}'
    for at in range(0, len(whole), 7):
        take_text(table, whole[:at] + noise + whole[at:])
        take_text(table, whole[:at] + noise)


def test_rows_that_do_not_fit_are_told_from_those_that_are_not_plain() -> None:
    table = intake()
    whole = text_of([[1.0, 1, True, "a", None]] * 3)
    assert take_text(table, whole, CAPACITY - 3) == 3
    assert take_text(table, whole, CAPACITY - 2) == -1
    with pytest.raises(ValueError, match="no such row"):
        take_text(table, whole, CAPACITY + 1)


def test_the_journal_has_the_rows_word_for_word_and_their_objects_only_what_may_be_kept() -> None:
    table = Intake(SCHEMA, "entity", ("n", "t"), CAPACITY)
    columns = ["t", "secret", "i", "n", "b", "m"]
    plan, labels = table.plan(columns), table.labels(columns)
    assert labels == (b'"t":', None, None, b'"n":', None, None)
    first = b'[["\xc3\xa4, ]", "x" , 1, 1.50, true, null]]}}'
    second = b'[[null,"y",2,-3e2,false,null], ["b","z",3,null,true,null]]}}'
    assert table.split_text(*plan, first, 0, 0) == 1
    assert table.split_text(*plan, b"broken", 0, 1) == 0
    assert table.split_text(*plan, second, 0, 1) == 2
    found = objects(labels, *table.journal(3))
    assert found == ['{"t":"\u00e4, ]","n":1.50}', '{"t":null,"n":-3e2}', '{"t":"b","n":null}']
    assert objects((None,) * 6, *table.journal(2)) == ["{}", "{}"]
    with pytest.raises(ValueError, match="no such rows"):
        table.journal(CAPACITY + 1)


def test_objects_of_damaged_rows_are_refused() -> None:
    ends = np.array([7], dtype=np.int32).tobytes()
    for labels, text in (((b'"a":',) * 9, b"[1,2,3]"), ((b'"a":',), b"[1")):
        with pytest.raises(ValueError, match=r"fewer values|not in the text"):
            objects(labels, text, ends)


# -- features to matrix, and the bins --

CATEGORIES = ("a", "b", "c")
FEATURES = FeatureSchema(
    inputs=(),
    features=(
        Feature(name="x", kind="numeric"),
        Feature(name="c", kind="categorical", categories=CATEGORIES),
        Feature(name="k", kind="numeric"),
    ),
)
numbers = st.one_of(st.floats(width=64), st.sampled_from([1e300, -1e300, 0.5, 1.0]))


def assembler() -> Assembler:
    return Assembler(tuple((f.name, f.codes if f.kind == "categorical" else None) for f in FEATURES.features))


@given(
    st.lists(
        st.tuples(numbers, st.sampled_from([*CATEGORIES, "new", None]), st.integers(-9, 9)), min_size=1, max_size=8
    )
)
def test_matrix_and_bins_are_those_of_training(rows: list[tuple[float, str | None, int]]) -> None:
    features = {
        "x": np.array([row[0] for row in rows]),
        "c": np.array([row[1] for row in rows], dtype=object),
        "k": np.array([row[2] for row in rows], dtype=np.int16),
    }
    training = {
        "x": np.array([0.1, 0.5, 0.5, 2.0, np.nan]),
        "c": np.array(["a", "a", "b", "c", None], dtype=object),
        "k": np.array([1, 1, 1, 1, 1]),
    }
    reference = Reference.of(encode_all(training, FEATURES), FEATURES, np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    expected = encode_all(features, FEATURES)
    matrix = np.empty((len(rows), 3), dtype=np.float32)
    assert assembler().assemble(features, len(rows), matrix)
    assert np.array_equal(matrix, expected.matrix, equal_nan=True)
    scores = np.linspace(0, 1, len(rows))
    counts = np.zeros(len(reference.series) + len(reference.ranged), dtype=np.int64)
    bins_of(reference).count(matrix, scores, counts)
    assert counts[: len(reference.series)].tolist() == reference.count(expected, scores).tolist()
    assert reference.ranged == ("x", "k")
    x, k = matrix[:, 0], matrix[:, 2]
    outside = [((x < np.float32(0.1)) | (x > np.float32(2.0))).sum(), (k != 1).sum()]
    assert counts[len(reference.series) :].tolist() == outside


def test_an_unseen_category_is_told_from_a_missing_one() -> None:
    matrix = np.empty((2, 3), dtype=np.float32)
    features = {"x": np.zeros(2), "c": np.array(["new", None], dtype=object), "k": np.zeros(2)}
    assert assembler().assemble(features, 2, matrix)
    assert np.isnan(matrix[:, 1]).all()
    assert (matrix.view(np.uint32)[:, 1] == UNSEEN_BITS).tolist() == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"x": 1.0},
        {"x": np.zeros(3)},
        {"x": np.zeros((2, 1))},
        {"x": np.array(["1", "2"])},
        {"x": np.array([1j, 2j])},
        {"x": np.array(["2013-01-01", "2013-01-02"], dtype="datetime64[s]")},
        {"x": np.zeros(2, dtype=">f8")},
        {"x": np.array([None, None], dtype=object)},
        {"c": np.array(["a", "b"])},
        {"c": np.array([1, "a"], dtype=object)},
        {"c": np.zeros(2)},
    ],
)
def test_features_of_another_shape_are_left_to_the_explaining_code(change: dict[str, Any]) -> None:
    features = {"x": np.zeros(2), "c": np.array(["a", None], dtype=object), "k": np.zeros(2), **change}
    assert not assembler().assemble(features, 2, np.empty((2, 3), dtype=np.float32))
    missing = {name: values for name, values in features.items() if name not in change}
    assert not assembler().assemble(missing, 2, np.empty((2, 3), dtype=np.float32))
    assert not assembler().assemble([features], 2, np.empty((2, 3), dtype=np.float32))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
def test_numbers_of_every_type_and_stride_are_taken(dtype: str) -> None:
    values = np.array([0, 1, 0, 1, 1, 1], dtype=dtype)[::-2]
    features = {"x": values, "c": np.array(["a"] * 3, dtype=object), "k": np.broadcast_to(np.float64(7), 3)}
    matrix = np.empty((3, 3), dtype=np.float32)
    assert assembler().assemble(features, 3, matrix)
    assert matrix.tolist() == [[1, 0, 7], [1, 0, 7], [1, 0, 7]]


def test_memory_that_is_too_small_is_refused() -> None:
    features = {"x": np.zeros(2), "c": np.array(["a", None], dtype=object), "k": np.zeros(2)}
    with pytest.raises(ValueError, match="at least 6 items"):
        assembler().assemble(features, 2, np.empty((1, 3), dtype=np.float32))
    bins = Bins((((0.5,), 3, None), (None, 4, None)))
    for arguments in (
        (np.zeros((1, 1), np.float32), np.zeros(2), np.zeros(7, np.int64)),
        (np.zeros((2, 1), np.float32), np.zeros(2), np.zeros(6, np.int64)),
        (np.zeros((2, 1), np.float64), np.zeros(2), np.zeros(7, np.int64)),
    ):
        with pytest.raises(ValueError, match="expected a buffer"):
            bins.count(*arguments)
    with pytest.raises(ValueError, match="do not fit"):
        Bins((((0.5, 1.0), 3, None),))
    ranged = Bins((((0.5,), 3, (0.0, 1.0)), ((0.5,), 3, None)))
    with pytest.raises(ValueError, match="at least 7 items"):
        ranged.count(np.zeros((1, 1), np.float32), np.zeros(1), np.zeros(6, np.int64))


@pytest.mark.parametrize("wrong", [((0.5,), 3), ((0.5,), 3, 1.0), ((0.5,), 3, (0.0,)), ([0.5], 3, None), 7])
def test_a_feature_that_is_not_described_as_it_must_be_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        Bins((wrong,))


def test_values_out_of_the_range_of_training_are_counted_and_its_ends_and_the_missing_are_not() -> None:
    tiny = np.float32(1e-45)  # the least that is above 0
    bins = Bins((((0.5,), 3, (0.0, 1.0)), (None, 4, None), ((0.5,), 3, (-2.0, 2.0)), ((0.5,), 3, None)))
    values = np.array([0.0, 1.0, 0.3, np.nan, tiny, -tiny, 1.0000001, 3.4e38, -3.4e38], dtype=np.float32)
    matrix = np.zeros((len(values), 3), dtype=np.float32)
    matrix[:, 0] = values
    counts = np.zeros(3 + 4 + 3 + 3 + 2, dtype=np.int64)
    bins.count(matrix, np.full(len(values), 1e9), counts)
    assert counts[13:].tolist() == [4, 0]
    assert counts[:13].sum() == 4 * len(values)


# -- ids --


def test_ids_are_uuids_of_version_7_and_know_their_version() -> None:
    noise = np.random.default_rng(0).bytes(8 * 200)
    moment = time.time_ns() // 1_000_000
    found = ids(moment, noise, 12345)
    assert len(set(found)) == 200
    for text in found:
        id_ = uuid.UUID(text)
        assert (id_.version, id_.variant, id_.int >> 80, str(id_)) == (7, uuid.RFC_4122, moment, text)
        high, low = id_.int >> 64, id_.int & (2**64 - 1)
        assert id_check(high, low, 12345) == low & 0xFFFFFF
        assert id_check(high, low, 54321) != low & 0xFFFFFF


# -- the head of a request --

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def test_a_plain_post_is_recognised() -> None:
    assert scan(HEAD) == (b"/invocations", len(HEAD) - 2, None, None)
    keyed = HEAD.replace(
        b"Host: x", b"authorization:  Bearer abc \r\nX-API-Key: k\r\nConnection: keep-alive\r\ntraceparent: 00-1"
    )
    assert scan(keyed) == (b"/invocations", len(keyed) - 2, b"Bearer abc", b"k")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"GET"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/invocations", b"/invocations?x=1"),
        (b"/invocations", b"/%69nvocations"),
        (b"/invocations", b"http://x/invocations"),
        (b"/invocations", b"/invo\x80"),
        (b"Content-Length: 2", b"Content-Length: 3"),
        (b"Content-Length: 2", b"Content-Length: 1"),
        (b"Content-Length: 2", b"Content-Length: +2"),
        (b"Content-Length: 2", b"Content-Length: 2, 2"),
        (b"Content-Length: 2", b"Content-Length: 2\r\nContent-Length: 2"),
        (b"Content-Length: 2", b"Content-Length: 0000000002"),
        (b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 2", b"Content-Length: 2\r\nTransfer-Encoding: chunked"),
        (b"Content-Length: 2", b"Content-Length : 2"),
        (b"application/json", b"text/csv"),
        (b"application/json", b"application/json; charset=latin-1"),
        (b"Host: x", b"Host: x\r\n folded"),
        (b"Host: x", b"Host: x\nX: y"),
        (b"Host: x", b"Host: \x00"),
        (b"Host: x", b": x"),
        (b"Host: x", b"Expect: 100-continue"),
        (b"Host: x", b"Content-Encoding: gzip"),
        (b"Host: x", b"Connection: close"),
        (b"Host: x", b"Connection: upgrade"),
        (b"Host: x", b"Inference-Header-Content-Length: 2"),
        (b"Host: x", b"X-Perennial-Version: 2"),
        (b"Host: x", b"X-API-Key: a\r\nX-API-Key: b"),
        (b"Host: x", b"Authorization: a\r\nAuthorization: b"),
    ],
)
def test_whatever_a_parser_must_see_is_left_to_it(old: bytes, new: bytes) -> None:
    assert old in HEAD
    assert scan(HEAD.replace(old, new, 1)) is None


@given(st.binary(max_size=200), st.integers(0, len(HEAD)), st.integers(0, len(HEAD)))
def test_no_bytes_can_harm_it(noise: bytes, start: int, end: int) -> None:
    scan(noise)
    scan(HEAD[:start])
    mixed = HEAD[:start] + noise + HEAD[end:]
    found = scan(mixed)
    if found is not None:
        path, body, _, _ = found
        assert mixed[:body].endswith(b"\r\n\r\n")
        assert mixed.startswith(b"POST " + path + b" HTTP/1.1\r\n")


def test_a_request_without_columns_of_ours_raises_what_the_explaining_code_raises() -> None:
    assert not intake().take(Body("records", [{}], 1), 0)
    with pytest.raises(RequestError):
        columns_from_rows([{}], SCHEMA)
