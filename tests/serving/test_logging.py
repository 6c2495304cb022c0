"""The log of predictions and labels: complete, free of what must not be stored, and never in the way of an answer."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from perennial_controller.quality.followed import Followed, Measured
from perennial_controller.quality.window import Length
from perennial_serving.model import stored_key
from perennial_serving.settings import Settings
from perennial_spec import logs, names
from perennial_spec.platform import Platform


def table(server: Any, name: str, kind: str) -> list[dict[str, Any]]:
    server.flushed()
    rows: list[dict[str, Any]] = DeltaTable(server.platform.table(name, kind)).to_pyarrow_table().to_pylist()
    return rows


@pytest.fixture
def server(pipeline: Any, bundles: Any, serve: Any) -> Any:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    return serve(pipeline)


def test_every_answered_row_is_logged_with_its_id_version_and_score(server: Any, row: Any) -> None:
    start = datetime.now(UTC)
    rows = [{**row, "flight_id": f"F{n}", "distance": float(n)} for n in range(30)]
    answers = [server.invoke(part, server.name).json() for part in (rows[:1], rows[1:10], rows[10:])]
    found = {each[logs.PREDICTION_ID]: each for each in table(server, server.name, logs.PREDICTIONS)}
    assert len(found) == 30
    ids = [each for answer in answers for each in answer["prediction_id"]]
    scores = [each for answer in answers for each in answer["predictions"]]
    for sent, each, score in zip(rows, ids, scores, strict=True):
        logged = found[each]
        assert (logged["entity"], logged["version"], logged["score"], logged["shadow"]) == (
            sent["flight_id"],
            "1",
            score,
            False,
        )
        assert start <= logged["at"] <= datetime.now(UTC)
        assert json.loads(logged["inputs"]) == {name: sent[name] for name in sent if name != "flight_id"}
    assert server.metrics()[f'{names.PREDICTION_LOG_WRITTEN}{{pipeline="{server.name}"}}'] == 30


def test_sensitive_and_redacted_columns_and_strangers_are_not_logged(server: Any, row: Any) -> None:
    sent = {**row, "gender": "f", "email": "a@b.c", "passport": "X1", "late": 1, "stranger": "secret"}
    assert server.invoke([sent], server.name).status_code == 200
    (logged,) = table(server, server.name, logs.PREDICTIONS)
    assert set(json.loads(logged["inputs"])) == {"departure", "distance", "stops", "direct", "carrier"}


def test_a_redacted_entity_is_stored_as_a_digest_that_labels_still_join_on(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    pipeline.route({pipeline.register(bundles["secret"]): 1.0})
    server = serve(pipeline)
    server.invoke([{**row, "flight_id": "passenger@example.com"}, {**row, "flight_id": None}], pipeline.name)
    server.http.post("/feedback", json={"labels": [{"entity": "passenger@example.com", "label": 1}]})
    logged = [each["entity"] for each in table(server, pipeline.name, logs.PREDICTIONS)]
    (label,) = table(server, pipeline.name, logs.LABELS)
    assert logged == [label["entity"], None]
    assert label["entity"] == stored_key(pipeline.name, "passenger@example.com")
    assert "passenger" not in label["entity"]


def test_labels_arrive_in_their_table_and_are_counted(server: Any) -> None:
    start = datetime.now(UTC)
    body = {
        "labels": [{"entity": 7.0, "label": True}, {"entity": "F2", "label": 0.5, "at": "2013-06-01T05:15:00+02:00"}]
    }
    for path in ("/feedback", f"/pipelines/{server.name}/feedback"):
        answer = server.http.post(path, json=body)
        assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    found = table(server, server.name, logs.LABELS)
    assert [(each["entity"], each["label"]) for each in found] == [("7", 1.0), ("F2", 0.5)] * 2
    assert start <= found[0]["at"] <= datetime.now(UTC)
    assert found[1]["at"] == datetime(2013, 6, 1, 3, 15, tzinfo=UTC)
    assert server.metrics()[f'{names.FEEDBACK}{{pipeline="{server.name}"}}'] == 4


def test_a_label_that_names_its_prediction_is_joined_with_exactly_that_one(server: Any, row: Any) -> None:
    ids, scores = [], []
    for distance in (10.0, 900.0, 2500.0):  # three answers about one entity
        answer = server.invoke([{**row, "distance": distance}], server.name).json()
        ids += answer["prediction_id"]
        scores += answer["predictions"]
    sent = server.http.post("/feedback", json={"labels": [{"prediction_id": ids[1], "label": True}]})
    assert (sent.status_code, sent.json()) == (200, {"accepted": 1})
    (label,) = table(server, server.name, logs.LABELS)
    assert (label[logs.PREDICTION_ID], label[logs.ENTITY], label[logs.LABEL]) == (ids[1], None, 1.0)
    server.http.post(
        "/feedback", json={"labels": [{"prediction_id": ids[0], "label": 0}, {"entity": "F1", "label": 1}]}
    )
    server.flushed()
    now = time.time_ns() // 1000
    wanted = Measured(("brier",), Length(3_600_000_000), classifier=True, slices=("carrier",))
    quality = Followed(server.platform.store, server.name, wanted, now).refresh(now).versions["1"]
    assert (quality.labels, quality.labelled_share) == (3, 1.0)
    assert {value: part.labels for value, part in quality.slices["carrier"].items()} == {row["carrier"]: 3}
    assert quality.figures["brier"].value == pytest.approx(
        (scores[0] ** 2 + (scores[1] - 1) ** 2 + (scores[2] - 1) ** 2) / 3
    )


def test_a_label_that_names_its_prediction_needs_no_entity_to_redact(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    pipeline.route({pipeline.register(bundles["secret"]): 1.0})
    server = serve(pipeline)
    (id_,) = server.invoke([row], pipeline.name).json()["prediction_id"]
    server.http.post("/feedback", json={"labels": [{"prediction_id": id_, "label": 1}]})
    (label,) = table(server, pipeline.name, logs.LABELS)
    assert (label[logs.PREDICTION_ID], label[logs.ENTITY]) == (id_, None)


def test_the_tables_have_the_columns_that_the_contract_names(server: Any, row: Any) -> None:
    server.invoke([row], server.name)
    server.http.post("/feedback", json={"labels": [{"entity": "F1", "label": 1}]})
    server.flushed()
    types = {
        "string": pa.string(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
    }
    for kind, columns in ((logs.PREDICTIONS, logs.PREDICTION_COLUMNS), (logs.LABELS, logs.LABEL_COLUMNS)):
        schema = DeltaTable(server.platform.table(server.name, kind)).to_pyarrow_table().schema
        assert {field.name: field.type for field in schema} == {name: types[text] for name, text in columns.items()}


def test_the_end_of_the_server_writes_what_waits(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, log_flush_seconds=600.0)
    for _ in range(5):
        server.invoke([row] * 3, pipeline.name)
    assert server.parts.prediction_log.waiting == 15
    server.stop()
    found = DeltaTable(server.platform.table(pipeline.name, logs.PREDICTIONS)).to_pyarrow_table()
    assert found.num_rows == 15


def test_a_full_queue_drops_predictions_and_counts_them_while_answers_go_on(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, log_flush_seconds=600.0, log_queue_rows=10)
    for _ in range(5):
        assert server.invoke([row] * 3, pipeline.name).status_code == 200
    assert server.metrics()[f'{names.PREDICTION_LOG_DROPPED}{{pipeline="{pipeline.name}"}}'] == 6
    # Labels are not dropped behind the client's back.
    answer = server.http.post("/feedback", json={"labels": [{"entity": "F1", "label": 1}] * 2})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_store_that_is_away_costs_no_answer_and_no_row_when_it_comes_back(
    pipeline: Any, bundles: Any, serve: Any, row: Any, tmp_path: Path
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline)
    blocked = tmp_path / "store"
    shutil.rmtree(blocked, ignore_errors=True)
    blocked.write_text("not a folder")
    for _ in range(3):
        assert server.invoke([row] * 4, pipeline.name).status_code == 200
    blocked.unlink()
    found = table(server, pipeline.name, logs.PREDICTIONS)
    assert len(found) == len({each["prediction_id"] for each in found}) == 12


def test_without_a_store_predictions_are_answered_and_labels_refused(
    mlflow: Any, pipeline: Any, bundles: Any, row: Any, tmp_path: Path
) -> None:
    from perennial_serving.server import assemble

    parts = assemble(Platform(mlflow_url=mlflow.url), Settings(cache_dir=str(tmp_path)))
    assert parts.prediction_log is None


def test_a_reward_is_given_to_the_version_that_made_the_prediction(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    versions = [pipeline.register(bundles[name]) for name in ("one", "two")]
    pipeline.route(dict.fromkeys(versions, 0.5))
    server = serve(pipeline)
    answer = server.invoke([{**row, "flight_id": f"F{n}"} for n in range(40)], pipeline.name).json()
    rewards = [
        {"prediction_id": id_, "reward": 1.5 if version == versions[0] else -1, "at": "2013-06-01T00:00:00Z"}
        for id_, version in zip(answer["prediction_id"], answer["version"], strict=True)
    ]
    stranger = {"prediction_id": "01a21411-81fb-7cba-843f-67277cb3cdd8", "reward": 9}
    sent = server.http.post(
        "/feedback", json={"rewards": [*rewards, stranger], "labels": [{"entity": "F1", "label": 1}]}
    )
    assert (sent.status_code, sent.json()) == (200, {"accepted": 42})
    first = answer["version"].count(versions[0])
    server.flushed()
    found = {each[logs.PREDICTION_ID]: each for each in table(server, pipeline.name, logs.REWARDS)}
    assert {id_: each[logs.VERSION] for id_, each in found.items()} == {
        **dict(zip(answer["prediction_id"], answer["version"], strict=True)),
        stranger["prediction_id"]: None,
    }
    assert len(table(server, pipeline.name, logs.LABELS)) == 1
    text = server.http.get("/metrics").text
    of = f'pipeline="{pipeline.name}",version="{versions[0]}"'
    assert f"perennial_rewards_total{{{of}}} {first}" in text
    assert f"perennial_reward_sum{{{of}}} {1.5 * first}" in text


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ({}, "rewards[0].prediction_id: got null"),
        ({"prediction_id": "x", "reward": 1}, "rewards[0].prediction_id: got text"),
        ({"prediction_id": "01a21411-81fb-7cba-843f-67277cb3cdd7"}, "rewards[0].reward: got null"),
        (
            {"prediction_id": "01a21411-81fb-7cba-843f-67277cb3cdd7", "reward": True},
            "rewards[0].reward: got true or false",
        ),
        ({"entity": "x", "reward": 1}, "rewards[0]: got an unknown field"),
        (
            {"prediction_id": "01a21411-81fb-7cba-843f-67277cb3cdd7", "reward": 1, "at": "soon"},
            "rewards[0].at: is no timestamp",
        ),
    ],
)
def test_a_wrong_reward_is_refused_with_its_field(one: Any, reward: Any, words: str) -> None:
    answer = one.http.post("/feedback", json={"rewards": [reward]})
    assert answer.status_code == 400
    assert words in answer.json()["message"]
    assert one.http.post("/feedback", json={"rewards": []}).json()["message"].startswith("rewards: is empty")
