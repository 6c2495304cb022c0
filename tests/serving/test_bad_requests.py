"""Bad requests: a 4xx in the form of the protocol spoken, that names the field and what was expected; never a 5xx."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OK = {"name": "distance", "datatype": "FP64", "shape": [1], "data": [1.0]}


def column(name: str, datatype: str, value: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1], "data": [value]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["inputs: got null", "a list of tensors"]),
        ({"inputs": {}}, ["inputs: got an object"]),
        ({"inputs": []}, ["no columns"]),
        ({"inputs": [7]}, ["inputs[0]: got a number", "a tensor"]),
        ({"inputs": [{**OK, "name": None}]}, ["inputs[0].name"]),
        ({"inputs": [OK, OK]}, ["inputs[1]", "'distance'", "twice"]),
        ({"inputs": [{**OK, "datatype": "FP7"}]}, ["'distance'", "datatype", "FP64"]),
        ({"inputs": [{**OK, "datatype": ["FP64"]}]}, ["'distance'", "datatype"]),
        ({"inputs": [{**OK, "shape": [2]}]}, ["'distance'", "has 1 values", "expected 2"]),
        ({"inputs": [{**OK, "shape": [1, 2]}]}, ["'distance'", "one column"]),
        ({"inputs": [{**OK, "shape": [True]}]}, ["'distance'", "one column"]),
        ({"inputs": [{**OK, "data": 1.0}]}, ["'distance': data", "list"]),
        ({"inputs": [{**OK, "data": [[1, 2]]}]}, ["'distance', row 0"]),
        ({"inputs": [{**OK, "data": ["far"]}]}, ["'distance', row 0", "got text", "numbers (FP64)"]),
        ({"inputs": [{**OK, "datatype": "INT32", "data": [1.5]}]}, ["'distance', row 0", "integers (INT32)"]),
        ({"inputs": [{**OK, "shape": [0], "data": []}]}, ["no rows"]),
        ({"inputs": [OK, {**OK, "name": "stops", "shape": [2], "data": [1, 2]}]}, ["'stops'", "has 2 values"]),
        ({"inputs": [OK], "id": 7}, ["id: got a number"]),
        ({"inputs": [OK], "outputs": [{"name": "scor"}]}, ["outputs[0].name", "score"]),
        ({"inputs": [OK], "outputs": "score"}, ["outputs: got text"]),
        ({"inputs": [OK]}, ["'departure' is missing", "ISO 8601"]),
        ([], ["the body is a list", "a JSON object"]),
    ],
)
def test_an_oip_request_is_refused_with_the_tensors_name(one: Any, body: Any, words: list[str]) -> None:
    answer = one.http.post(f"/v2/models/{one.name}/infer", json=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    for word in words:
        assert word in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["exactly one of dataframe_split"]),
        ({"inputs": [], "instances": []}, ["got instances and inputs"]),
        ({"dataframe_split": []}, ["dataframe_split: got a list"]),
        ({"dataframe_split": {"data": []}}, ["dataframe_split.columns"]),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, ["dataframe_split.columns", "once"]),
        (
            {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [1]]}},
            ["dataframe_split.data[1]", "list of 2 values"],
        ),
        ({"dataframe_split": {"columns": ["a"], "data": [7]}}, ["dataframe_split.data[0]", "got a number"]),
        ({"dataframe_records": [1]}, ["dataframe_records[0]"]),
        ({"dataframe_records": []}, ["no columns"]),
        ({"dataframe_records": [{}]}, ["no columns"]),
        ({"instances": "x"}, ["instances: got text"]),
        ({"inputs": {"a": [1], "b": 2}}, ["column 'b'", "list"]),
        ({"inputs": {"a": [1], "b": [2, 3]}}, ["column 'b'", "has 2 values, and 'a' has 1"]),
    ],
)
def test_a_scoring_request_is_refused_with_the_field(one: Any, body: Any, words: list[str]) -> None:
    answer = one.http.post("/invocations", json=body)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "BAD_REQUEST"
    for word in words:
        assert word in answer.json()["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distance": "far"}, ["'distance'", "row 0", "a number"]),
        ({"distance": {"km": 1}}, ["'distance'", "got an object"]),
        ({"stops": 1.5}, ["'stops'", "an integer"]),
        ({"stops": 10**19}, ["'stops'"]),
        ({"direct": "perhaps"}, ["'direct'", "true or false"]),
        ({"departure": "yesterday"}, ["'departure'", "ISO 8601"]),
        ({"departure": 7}, ["'departure'", "ISO 8601"]),
        ({"carrier": ["UA"]}, ["'carrier'", "text"]),
        ({"flight_id": {"a": 1}}, ["'flight_id'", "text or a number"]),
        ({"flight_id": "x" * 600}, ["'flight_id'", "at most 512"]),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_row(one: Any, row: Any, change: Any, words: list[str]) -> None:
    answer = one.http.post("/invocations", json={"instances": [{**row, **change}]})
    assert answer.status_code == 400
    for word in words:
        assert word in answer.json()["message"]


def test_a_missing_column_is_named_with_the_nearest_that_was_sent(one: Any, row: Any) -> None:
    row["stop"] = row.pop("stops")
    message = one.http.post("/invocations", json={"inputs": row}).json()["message"]
    assert "'stops' is missing" in message
    assert "'stop'" in message


def test_columns_that_the_model_does_not_know_are_ignored(one: Any, row: Any) -> None:
    assert one.http.post("/invocations", json={"inputs": {**row, "weather": {"deep": []}}}).status_code == 200


def test_unknown_models_and_versions_get_404_with_the_nearest_name(one: Any, row: Any) -> None:
    answer = one.http.post(f"/v2/models/{one.name}x/infer", json={"inputs": [OK]})
    assert answer.status_code == 404
    assert f"did you mean '{one.name}'?" in answer.json()["error"]
    answer = one.http.post(f"/pipelines/{one.name}x/invocations", json={"inputs": row})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    for path in ("", "/ready"):
        answer = one.http.get(f"/v2/models/{one.name}/versions/9{path}")
        assert answer.status_code == 404
        assert "version '9'" in answer.json()["error"]
    assert one.http.post(f"/v2/models/{one.name}/versions/9/infer", json={"inputs": [OK]}).status_code == 404


def test_paths_and_methods_that_do_not_exist_are_answered_in_the_protocols_form(one: Any) -> None:
    assert one.http.get("/v2/nothing").json() == {"error": "there is no such path; GET / lists them"}
    assert one.http.get("/nothing").json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    answer = one.http.get("/invocations")
    assert (answer.status_code, answer.json()["error_code"]) == (405, "METHOD_NOT_ALLOWED")


def test_a_body_that_is_too_large_gets_413_before_it_is_read(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, max_body_bytes=2000, max_rows=5)
    path = f"/v2/models/{pipeline.name}/infer"
    said = server.http.post(path, content=b"x" * 2001, headers={"content-type": "application/json"})
    assert (said.status_code, said.json()["error"]) == (
        413,
        "the body is too large; expected at most 2,000 bytes; send it in parts",
    )
    unsaid = server.http.post(
        "/invocations", content=(b"x" * 500 for _ in range(5)), headers={"content-type": "application/json"}
    )
    assert (unsaid.status_code, unsaid.json()["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
    rows = server.http.post("/invocations", json={"inputs": {"stops": [1] * 6}})
    assert (rows.status_code, "at most 5" in rows.json()["message"]) == (413, True)
    rows = server.http.post("/invocations", content="stops\n" + "1\n" * 6, headers={"content-type": "text/csv"})
    assert rows.status_code == 413
    assert server.invoke([row], pipeline.name).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"NaN", b'{"inputs": NaN}', b'{"inputs": [1e999]}', b"\xff\xfe", b"[" * 5000, b'"\\ud800"']
)
def test_what_is_not_json_gets_400(one: Any, body: bytes) -> None:
    for path in ("/invocations", f"/v2/models/{one.name}/infer", "/feedback"):
        answer = one.http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert "JSON" in answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"", "no columns"),
        (b"a,b\n1,2,3\n", "line 2: has 3 values"),
        (b"a,a\n1,2\n", "line 1: has a name twice"),
        (b"a,\n1,2\n", "line 1: has a name twice, or an empty one"),
        (b'a,b\n"1,2\n', "not CSV"),
        (b"a,b\n", "no rows"),
        (b"a\n" + b"x" * 200_000, "not CSV"),
    ],
)
def test_what_is_not_csv_gets_400_with_the_line(one: Any, body: bytes, words: str) -> None:
    answer = one.http.post("/invocations", content=body, headers={"content-type": "text/csv"})
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def test_other_content_types_get_415(one: Any) -> None:
    for path in ("/invocations", f"/v2/models/{one.name}/infer", "/feedback"):
        answer = one.http.post(path, content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"})
        assert answer.status_code == 415
        assert "application/json" in answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "labels: got null"),
        ({"labels": []}, "labels: is empty"),
        ({"labels": [7]}, "labels[0]: got a number"),
        ({"labels": [{"entity": "F1"}]}, "labels[0].label: got null"),
        ({"labels": [{"label": 1}]}, "labels[0].entity: is missing"),
        ({"labels": [{"prediction_id": "F1", "label": 1}]}, "labels[0].prediction_id: got text"),
        ({"labels": [{"prediction_id": 7, "label": 1}]}, "labels[0].prediction_id: got a number"),
        (
            {"labels": [{"entity": "F1", "prediction_id": "01a21411-81fb-7cba-843f-67277cb3cdd7", "label": 1}]},
            "labels[0]: has entity and prediction_id",
        ),
        ({"labels": [{"entity": "F1", "label": 1}, {"entity": "F1", "label": "late"}]}, "labels[1].label: got text"),
        ({"labels": [{"entity": [], "label": 1}]}, "labels[0].entity: got a list"),
        ({"labels": [{"entity": "F1", "label": 1, "when": 1}]}, "labels[0]: got an unknown field"),
        ({"labels": [{"entity": "F1", "label": 1, "at": "soon"}]}, "labels[0].at: is no timestamp"),
        (
            {"labels": [{"entity": "F1", "label": 1, "at": "0001-01-01T00:00:00+14:00"}]},
            "labels[0].at: is no timestamp",
        ),
    ],
)
def test_feedback_is_refused_with_the_label_and_its_field(one: Any, body: Any, words: str) -> None:
    answer = one.http.post("/feedback", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["message"]


# -- anything at all --

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["2013-01-01", "1e5", "nan", "9" * 40]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
COLUMNS = st.sampled_from(["flight_id", "departure", "distance", "stops", "direct", "carrier"])
RECORD = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["departure", "distance", "stops", "direct", "carrier", "flight_id"], JSON)
)
TENSOR = st.fixed_dictionaries(
    {"name": COLUMNS | JSON, "datatype": st.sampled_from(["FP64", "INT64", "BOOL", "BYTES"]) | JSON},
    optional={"shape": st.lists(st.integers(-1, 3), max_size=3) | JSON, "data": st.lists(JSON, max_size=3) | JSON},
)
SCORING = st.one_of(
    JSON,
    st.fixed_dictionaries({"dataframe_records": st.lists(RECORD | JSON, max_size=3)}),
    st.fixed_dictionaries({"inputs": RECORD | st.dictionaries(COLUMNS, st.lists(JSON, max_size=3)) | JSON}),
    st.fixed_dictionaries(
        {
            "dataframe_split": JSON
            | st.fixed_dictionaries({"columns": st.lists(COLUMNS) | JSON, "data": st.lists(st.lists(JSON)) | JSON})
        }
    ),
)
OIP = JSON | st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=4) | JSON}, optional={"outputs": JSON, "id": JSON}
)
FEEDBACK = JSON | st.fixed_dictionaries(
    {
        "labels": st.lists(
            JSON | st.fixed_dictionaries({"entity": JSON, "label": JSON}, optional={"at": JSON}), max_size=3
        )
    }
)
ANYTHING = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


def hostile(one: Any, path: str, value: Any) -> None:
    try:
        body = json.dumps(value).encode()
    except ValueError:
        body = repr(value).encode(errors="replace")
    answer = one.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {200, 400}, (value, answer.text)
    assert answer.json()


@ANYTHING
@given(value=SCORING)
def test_no_scoring_body_makes_the_server_fail(one: Any, value: Any) -> None:
    hostile(one, "/invocations", value)


@ANYTHING
@given(value=OIP)
def test_no_oip_body_makes_the_server_fail(one: Any, value: Any) -> None:
    hostile(one, f"/v2/models/{one.name}/infer", value)


@ANYTHING
@given(value=FEEDBACK)
def test_no_feedback_body_makes_the_server_fail(one: Any, value: Any) -> None:
    hostile(one, "/feedback", value)


@ANYTHING
@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), csv=st.booleans())
def test_no_bytes_make_the_server_fail(one: Any, body: bytes, csv: bool) -> None:
    answer = one.http.post(
        "/invocations", content=body, headers={"content-type": "text/csv" if csv else "application/json"}
    )
    assert answer.status_code == 400


def test_paths_that_are_no_text_are_answered(one: Any) -> None:
    host, port = one.url.removeprefix("http://").split(":")
    for path in (
        b"/v2/models/%ff%fe/infer",
        b"/v2/models/\xc3\xa9/infer",
        b"/pipelines/%00/invocations",
        b"//",
        b"/v2/models/..%2f..%2fx",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            status = int(raw.recv(65536).split()[1])
        assert 400 <= status < 500, path
