"""What people and other parts ask of the controller, and what they are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

RUNS = "/api/v1/pipelines/flights/runs"
ASKED = {"reason": "the quarter's data is in", "actor": "ada"}


async def test_a_person_gets_a_run_and_it_is_in_their_name(world: Any) -> None:
    async with world.controller() as client:
        answer = await client.http.post(RUNS, json=ASKED)
        (run,) = await client.until(lambda: world.airflow.of("flights"))
    row = answer.json()
    assert answer.status_code == 202
    assert (row["decision"], row["started"], row["run_id"]) == ("accepted", True, run["dag_run_id"])
    assert run["conf"]["reason"] == {
        "kind": "person",
        "summary": "the quarter's data is in",
        "decision_id": row["id"],
        "actor": "ada",
    }


async def test_a_person_is_told_of_the_run_that_is_active(world: Any) -> None:
    async with world.controller() as client:
        first = (await client.http.post(RUNS, json=ASKED)).json()
        answer = await client.http.post(RUNS, json=ASKED)
        assert answer.status_code == 200
        row = answer.json()
        assert (row["decision"], row["started"], row["run_id"]) == ("merged", False, first["run_id"])
        assert f"run {first['run_id']}, accepted" in row["reason"]
        await client.until(lambda: world.airflow.of("flights"))
        world.airflow.finish(first["run_id"])

        async def ended() -> bool:
            return bool((await client.decision(first["id"]))["outcome"] == "success")

        await client.until(ended)
        assert (await client.http.post(RUNS, json=ASKED)).status_code == 202


async def test_a_request_repeated_with_its_key_is_one_request(world: Any) -> None:
    async with world.controller() as client:
        headers = {"Idempotency-Key": "2026-q1"}
        answers = await asyncio.gather(*(client.http.post(RUNS, json=ASKED, headers=headers) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert all(answer.json()["started"] for answer in answers)


async def test_new_data_starts_the_data_dag_and_announcements_that_wait_become_one_run(world: Any) -> None:
    path = "/api/v1/pipelines/flights/data"
    world.airflow.dags.clear()  # Airflow does not know the DAG yet
    async with world.controller() as client:
        first = await client.http.post(path, json={"reason": "June is here"})
        second = await client.http.post(path, json={"reason": "July is here"})
        world.airflow.dags |= {"flights.data"}
        (run,) = await client.until(lambda: world.airflow.of("flights.data"))

        async def delivered() -> bool:
            return bool((await client.decision(first.json()["id"]))["delivery"] == "delivered")

        await client.until(delivered)
        third = await client.http.post(path, content=b"")
    assert (first.status_code, second.status_code, third.status_code) == (202, 200, 202)
    assert second.json()["reason"] == f"run {run['dag_run_id']} has not started yet and will find this data"
    assert run["conf"]["reason"] == {"kind": "data", "summary": "June is here", "decision_id": first.json()["id"]}
    assert third.json()["summary"] == "new data has arrived"


async def test_an_unknown_pipeline_is_named_with_the_nearest(world: Any) -> None:
    async with world.controller() as client:
        for path in ("runs", "data"):
            answer = await client.http.post(f"/api/v1/pipelines/flihgts/{path}", json=ASKED)
            assert answer.status_code == 404
            assert answer.json()["next"] == "did you mean 'flights'?"
        assert (await client.http.get("/api/v1/pipelines/flihgts/decisions")).status_code == 404
        assert (await client.http.get("/api/v1/decisions/77")).json() == {
            "error": "there is no decision 77",
            "where": "/api/v1/decisions/77",
        }
        assert (await client.http.get(f"/api/v1/decisions/{2**70}")).status_code == 404


async def test_a_broken_pipeline_is_not_run_and_the_line_is_named(world: Any) -> None:
    (world.pipeline("trains") / "pipeline.yaml").write_text("apiVersion: perennial/v1\nname: trains\nowner: nobody\n")
    async with world.controller() as client:
        answer = await client.http.post("/api/v1/pipelines/trains/runs", json=ASKED)
        assert answer.status_code == 422
        assert "trains/pipeline.yaml:1" in answer.json()["where"]
        assert "data is missing" in answer.json()["error"]
        assert (await client.http.get("/api/v1/pipelines/trains/decisions")).status_code == 422


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"reason": "x"}, "actor: Field required"),
        ({"actor": "ada"}, "reason: Field required"),
        ({**ASKED, "reason": "  "}, "reason: String should have at least 1 character"),
        ({**ASKED, "reason": "x" * 501}, "reason: String should have at most 500 characters"),
        ({**ASKED, "force": True}, "force: Extra inputs are not permitted"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_field(world: Any, body: dict[str, Any], says: str) -> None:
    async with world.controller() as client:
        answer = await client.http.post(RUNS, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"] == says
        assert answer.json()["expected"] == "JSON of RunRequest: reason, actor"
        assert await client.decisions() == []


async def test_a_key_that_is_too_long_is_refused(world: Any) -> None:
    async with world.controller() as client:
        answer = await client.http.post(RUNS, json=ASKED, headers={"Idempotency-Key": "k" * 201})
    assert (answer.status_code, answer.json()["expected"]) == (400, "at most 200 characters")


@pytest.mark.parametrize("limit", ["0", "201", "-1", "many", "²"])
async def test_a_wrong_limit_is_refused(world: Any, limit: str) -> None:
    async with world.controller() as client:
        answer = await client.http.get("/api/v1/pipelines/flights/decisions", params={"limit": limit})
    assert (answer.status_code, answer.json()["expected"]) == (400, "a number from 1 to 200")


async def test_decisions_come_newest_first_and_no_more_than_asked_for(world: Any) -> None:
    async with world.controller() as client:
        ids = [(await client.http.post(RUNS, json=ASKED)).json()["id"] for _ in range(4)]
        answer = await client.http.get("/api/v1/pipelines/flights/decisions", params={"limit": 3})
    assert [row["id"] for row in answer.json()["decisions"]] == ids[:0:-1]


async def test_a_person_is_told_when_the_ledger_is_away(world: Any) -> None:
    async with world.controller() as client:
        with world.database.away():
            answer = await client.http.post(RUNS, json=ASKED)
            looked = await client.http.get("/api/v1/pipelines/flights/decisions")
    assert answer.status_code == looked.status_code == 503
    assert "it may have been written before that: look at the pipeline's decisions" in answer.json()["next"]
    assert looked.json()["next"] == "ask again"


async def test_a_request_whose_answer_was_lost_is_repeated_with_its_key_and_is_one_request(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial_controller.decider import Decider

    async def away(self: Decider, name: str) -> None:
        raise TimeoutError("the database went away after the writing")

    async with world.controller(decide_every=3600) as client:
        headers = {"Idempotency-Key": "2026-q1"}
        with monkeypatch.context() as patch:
            patch.setattr(Decider, "decide_pipeline", away)
            answer = await client.http.post(RUNS, json=ASKED, headers=headers)
        (written,) = await client.decisions()
        again = await client.http.post(RUNS, json=ASKED, headers=headers)
        assert len(await client.decisions()) == 1
    assert answer.status_code == 503
    assert "repeat it with the same Idempotency-Key" in answer.json()["next"]
    assert (again.json()["id"], again.json()["started"]) == (written["id"], True)


async def test_a_person_does_not_wait_for_a_registry_that_is_away(world: Any, make_alert: Any) -> None:
    from starlette.responses import JSONResponse

    world.registry.misbehave = lambda: JSONResponse({}, 503)
    async with world.controller() as client:
        (alert,) = (await client.alert(make_alert())).json()["decisions"]
        answer = await client.http.post(RUNS, json=ASKED)
        assert answer.status_code == 202
        assert (await client.decision(alert))["decision"] == "received"


async def test_a_rollback_by_hand_is_on_record_and_pauses_nothing(world: Any) -> None:
    body = {"reason": "it is worse", "actor": "ann", "to": "3", "leaving": ["4"]}
    async with world.controller() as client:
        answer = await client.http.post("/api/v1/pipelines/flights/rollbacks", json=body)
        row = await client.decided(answer.json()["id"], "noted")
        assert (row["kind"], row["actor"], row["summary"]) == ("rollback", "ann", "it is worse")
        assert row["payload"] == {"to": "3", "leaving": ["4"]}
        assert (await client.http.get("/api/v1/pauses")).json() == {"pauses": []}
        assert (await client.http.post("/api/v1/pipelines/flights/rollbacks", json={"actor": "ann"})).status_code == 400


async def test_a_promotion_by_hand_is_on_record_and_starts_nothing(world: Any) -> None:
    body = {"reason": "seen enough", "actor": "ann", "to": "4", "before": "3"}
    path = "/api/v1/pipelines/flights/promotions"
    async with world.controller() as client:
        answer = await client.http.post(path, json=body)
        row = await client.decided(answer.json()["id"], "noted")
        assert (row["kind"], row["actor"], row["summary"]) == ("promotion", "ann", "seen enough")
        assert row["payload"] == {"to": "4", "before": "3"}
        first = {**body, "before": None}
        assert (await client.http.post(path, json=first)).status_code == 200, "the first champion has none before it"
        assert (await client.http.post(path, json={**body, "to": ""})).status_code == 400
    assert client.airflow.posts == []


async def test_the_ledger_is_read_page_by_page(world: Any) -> None:
    async with world.controller() as client:
        for place in range(5):
            await client.http.post("/api/v1/pipelines/flights/runs", json={"reason": f"try {place}", "actor": "mara"})
        path, ids = "/api/v1/pipelines/flights/decisions", []
        page = (await client.http.get(path, params={"limit": 2})).json()["decisions"]
        while page:
            ids += [row["id"] for row in page]
            page = (await client.http.get(path, params={"limit": 2, "before": ids[-1]})).json()["decisions"]
        assert ids == sorted(ids, reverse=True)
        assert len(ids) == 5


@pytest.mark.parametrize("before", ["0", "-1", "many", "9" * 20])
async def test_a_wrong_place_to_read_on_from_is_refused(world: Any, before: str) -> None:
    async with world.controller() as client:
        answer = await client.http.get("/api/v1/pipelines/flights/decisions", params={"before": before})
        assert answer.status_code == 400
        assert "before" in answer.json()["error"]
