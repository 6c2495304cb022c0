"""Nothing sensitive, redacted or unasked for reaches the store, whatever form the request had."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from perennial_serving.model import stored_key
from perennial_spec import logs

NEEDLE = "NEEDLE"
SHOWN = {"departure", "distance", "stops", "direct", "carrier"}
Rows = list[dict[str, Any]]
Body = tuple[dict[str, Any], str]
"""(arguments of the request, how its path ends)."""


def tensors(rows: Rows, shape: Callable[[int], list[int]]) -> list[dict[str, Any]]:
    types = {str: "BYTES", float: "FP64", bool: "BOOL", int: "INT64"}
    return [
        {"name": name, "datatype": types[type(value)], "shape": shape(len(rows)), "data": [row[name] for row in rows]}
        for name, value in rows[0].items()
    ]


def as_csv(rows: Rows) -> Body:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return {"content": text.getvalue(), "headers": {"content-type": "text/csv"}}, "invocations"


def named(rows: Rows) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def split(rows: Rows) -> dict[str, Any]:
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


FORMS: dict[str, Callable[[Rows], Body]] = {
    "dataframe_records": lambda rows: ({"json": {"dataframe_records": rows}}, "invocations"),
    "dataframe_split": lambda rows: ({"json": {"dataframe_split": split(rows)}}, "invocations"),
    "instances": lambda rows: ({"json": {"instances": rows}}, "invocations"),
    "inputs by column": lambda rows: ({"json": {"inputs": named(rows)}}, "invocations"),
    "inputs by row": lambda rows: ({"json": {"inputs": rows}}, "invocations"),
    "spaced out": lambda rows: (
        {"content": json.dumps({"inputs": rows}, indent=2), "headers": {"content-type": "application/json"}},
        "invocations",
    ),
    "csv": as_csv,
    "tensors": lambda rows: ({"json": {"inputs": tensors(rows, lambda n: [n])}}, "infer"),
    "tensors in two dimensions": lambda rows: ({"json": {"inputs": tensors(rows, lambda n: [n, 1])}}, "infer"),
}


def poisoned(row: dict[str, Any], count: int) -> Rows:
    hidden = {name: f"{NEEDLE}-{name}" for name in ("gender", "email", "passport", "stranger", NEEDLE)}
    return [{**row, "flight_id": f"{NEEDLE}{n}@example.com", **hidden, "late": 777777} for n in range(count)]


def stored(store: Path, pipeline: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(f"{store}/{pipeline}/{logs.PREDICTIONS}").to_pyarrow_table().to_pylist()
    return rows


@pytest.fixture
def secret(pipeline: Any, bundles: Any, serve: Any, wait: Any) -> Any:
    """Two versions that answer, and one in their shadow, all of a spec that hides the entity."""
    first, second, shadow = (pipeline.register(bundles["secret"]) for _ in range(3))
    pipeline.route({first: 0.5, second: 0.5}, shadow=(shadow,))
    server = serve(pipeline, inline_rows=2)
    wait(lambda: server.parts.fleet.served[pipeline.name].shadows, 30)  # it is ready before its shadows are
    return server


def test_no_form_of_a_request_brings_what_is_hidden_into_the_store(secret: Any, row: Any, wait: Any) -> None:
    answered = 0
    for count in (1, 5):
        for form, write in FORMS.items():
            arguments, end = write(poisoned(row, count))
            path = (
                f"/pipelines/{secret.name}/invocations" if end == "invocations" else f"/v2/models/{secret.name}/infer"
            )
            answer = secret.http.post(path, **arguments)
            assert answer.status_code == 200, (form, answer.text)
            answered += count
    labels = [{"entity": f"{NEEDLE}{n}@example.com", "label": 1} for n in range(5)]
    assert secret.http.post("/feedback", json={"labels": labels}).status_code == 200
    wait(lambda: secret.parts.prediction_log.written[secret.name] == 2 * answered, 30)
    secret.flushed()
    store = Path(secret.platform.store)
    found = stored(store, secret.name)
    assert sum(not each[logs.SHADOW] for each in found) == answered
    assert sum(each[logs.SHADOW] for each in found) == answered
    for each in found:
        assert set(json.loads(each[logs.INPUTS])) == SHOWN
    digests = {stored_key(secret.name, f"{NEEDLE}{n}@example.com") for n in range(5)}
    assert {each[logs.ENTITY] for each in found} == digests
    texts = [str(each) for each in found]
    assert not any(NEEDLE in text or "777777" in text for text in texts)
    # Nor in the statistics that Delta and Parquet keep beside the rows.
    files = [path.read_bytes() for path in store.rglob("*") if path.is_file()]
    assert files
    assert not any(NEEDLE.encode() in data or b"777777" in data for data in files)
