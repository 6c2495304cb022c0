"""Alerts come in: at least once, in any order, from whoever has the token."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perennial_controller import requests


async def test_an_alert_starts_one_run_with_its_reason(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        answer = await client.alert(make_alert())
        assert answer.status_code == 200
        (id,) = answer.json()["decisions"]
        row = await client.decided(id, "accepted")
        (run,) = await client.until(lambda: client.airflow.of("flights"))
    assert run["dag_run_id"] == row["run_id"]
    assert run["conf"]["reason"] == {
        "kind": "alert",
        "summary": "temp has drifted: PSI 2.10 > 0.20",
        "decision_id": id,
        "alert": "PerennialFeatureDrift",
    }
    assert "data version 3 passed validation" in row["reason"]


async def test_copies_at_the_same_time_start_one_run(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        answers = await asyncio.gather(*(client.alert(make_alert()) for _ in range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        ids = {answer.json()["decisions"][0] for answer in answers}
        assert len(ids) == 1
        assert sum(answer.json()["new"] for answer in answers) == 1
        await client.until(lambda: client.airflow.of("flights"))
        again = await client.alert(make_alert())
        assert again.json() == {"decisions": list(ids), "new": 0}
        row = await client.decision(ids.pop())
        metrics = await client.metrics()
    assert row["duplicates"] == 8
    assert metrics['perennial_controller_decisions_total{decision="duplicate",pipeline="flights"}'] == 8
    assert metrics['perennial_controller_decisions_total{decision="accepted",pipeline="flights"}'] == 1
    assert len(client.airflow.posts) == 1


async def test_two_controllers_on_one_ledger_start_one_run(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    async with world.controller() as one, world.controller() as two:
        alerts = [make_alert(fingerprint=f"f{number}") for number in range(6)]
        await asyncio.gather(*(client.alert(alert) for alert in alerts for client in (one, two)))

        async def all_decided() -> list[str] | None:
            kinds = [row["decision"] for row in await one.decisions()]
            return kinds if "received" not in kinds else None

        kinds = await one.until(all_decided)
        await one.until(lambda: one.airflow.of("flights"))
    assert sorted(kinds) == ["accepted", *["merged"] * 5]
    assert len(one.airflow.of("flights")) == 1


async def test_a_flood_of_copies_is_counted_exactly(world: Any, make_alert: Any) -> None:
    """Two Alertmanagers that do not know of each other, notifications of 50, of which many hold an alert twice."""
    distinct = [make_alert(fingerprint=f"f{number}", action="none") for number in range(100)]
    chosen = random.Random(7)
    bodies = [[chosen.choice(distinct) for _ in range(50)] for _ in range(20)]
    async with world.controller() as one, world.controller() as two:
        for client in (one, two):
            assert (await client.alert(*distinct)).status_code == 200
        answers = await asyncio.gather(*(client.alert(*body) for body in bodies for client in (one, two)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["new"] for answer in answers) == 0
    rows = dict(world.database.run("SELECT payload->>'fingerprint', duplicates FROM perennial_decisions"))
    sent = Counter(alert["fingerprint"] for body in bodies for alert in body)
    assert rows == {alert["fingerprint"]: 2 * sent[alert["fingerprint"]] + 1 for alert in distinct}


async def test_new_alerts_that_come_at_once_from_many_are_each_one_row(world: Any, make_alert: Any) -> None:
    distinct = [make_alert(fingerprint=f"f{number}", action="none") for number in range(200)]
    async with world.controller() as one, world.controller() as two:
        bodies = [random.Random(seed).sample(distinct, len(distinct)) for seed in range(4)]
        answers = await asyncio.gather(*(client.alert(*body) for body in bodies for client in (one, two)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["new"] for answer in answers) == 200
    assert world.database.run("SELECT count(*), sum(duplicates), max(id) FROM perennial_decisions")[0][:2] == (
        200,
        1400,
    )


async def test_an_alert_that_a_notification_holds_twice_is_new_once(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        answer = (await client.alert(make_alert(), make_alert())).json()
        assert (len(set(answer["decisions"])), answer["new"]) == (1, 1)
        assert (await client.decision(answer["decisions"][0]))["duplicates"] == 1


async def test_a_body_that_does_not_come_is_waited_for_so_long(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)
        yield b"}"

    async with world.controller() as client:
        answer = await client.http.post("/api/v1/alerts", content=slow())
    assert answer.status_code == 408
    assert answer.json() == {
        "error": "the body has not come within 0.2 s",
        "where": "/api/v1/alerts",
        "next": "send it again",
    }


async def test_the_same_alert_firing_anew_is_a_new_event(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        first = (await client.alert(make_alert())).json()["decisions"]
        second = (await client.alert(make_alert(starts_at="2026-01-02T00:00:00Z"))).json()["decisions"]
    assert first != second


async def test_one_moment_in_two_time_zones_is_one_event(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        first = (await client.alert(make_alert(starts_at="2026-01-01T12:00:00Z"))).json()["decisions"]
        second = (await client.alert(make_alert(starts_at="2026-01-01T14:00:00+02:00"))).json()["decisions"]
    assert first == second


async def test_an_alert_that_does_not_ask_for_a_retraining_is_recorded_and_starts_nothing(
    world: Any, make_alert: Any
) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert(action="none"))).json()["decisions"]
        row = await client.decided(id, "ignored")
    assert row["reason"] == "action is 'none'; only 'retrain' starts a run, 'rollback' takes traffic back"
    assert client.airflow.posts == []


async def test_an_alert_on_no_pipeline_of_ours_starts_nothing_and_makes_no_series_of_its_own(
    world: Any, make_alert: Any
) -> None:
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert(pipeline="boats"))).json()["decisions"]
        row = await client.decided(id, "not_allowed")
        metrics = await client.metrics()
    assert row["reason"] == "there is no pipeline named 'boats'"
    assert not any("boats" in name for name in metrics)


async def test_an_alert_that_ends_while_it_waits_starts_nothing(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        await client.decided(id, "waiting_for_data")
        await client.alert(make_alert(status="resolved"))
        row = await client.decided(id, "resolved")
        world.validated("flights", 3)
        await client.alert(make_alert())  # a late copy of the firing alert
        await asyncio.sleep(0.5)
        later = await client.decision(id)
    assert [step["decision"] for step in row["trail"]] == ["waiting_for_data", "resolved"]
    assert later["decision"] == "resolved"
    assert client.airflow.posts == []


async def test_an_alert_that_comes_back_after_its_end_is_decided_anew(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        await client.decided(id, "waiting_for_data")
        await client.alert(make_alert(status="resolved"))
        await client.decided(id, "resolved")
        world.database.run("UPDATE perennial_decisions SET resolved_at = resolved_at - interval '2 minutes'")
        await client.alert(make_alert())  # the same startsAt: a short gap in the figures
        row = await client.decided(id, "waiting_for_data")
        assert row["resolved_at"] is None
        world.validated("flights", 3)
        row = await client.decided(id, "accepted")
    assert [step["decision"] for step in row["trail"]] == [
        *("waiting_for_data", "resolved", "waiting_for_data", "accepted")
    ]


async def test_an_end_that_comes_before_the_alert_itself_starts_nothing(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert(status="resolved"))).json()["decisions"]
        await client.alert(make_alert())
        row = await client.decided(id, "resolved")
    assert row["duplicates"] == 1
    assert client.airflow.posts == []


async def test_without_the_token_nothing_is_taken_or_told(world: Any, make_alert: Any, make_notification: Any) -> None:
    async with world.controller() as client:
        for header in (
            {"Authorization": ""},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic correct-horse"},
        ):
            body = make_notification(make_alert())
            answer = await client.http.post("/api/v1/alerts", json=body, headers=header)
            assert answer.status_code == 401
            assert answer.json()["expected"] == "Authorization: Bearer TOKEN"
            assert (await client.http.get("/api/v1/pipelines/flights/decisions", headers=header)).status_code == 401
        assert await client.decisions() == []


async def test_a_new_token_in_the_file_holds_at_once(world: Any) -> None:
    async with world.controller() as client:
        (world.folder / "token").write_text("a-new-secret")
        old = await client.http.get("/api/v1/pipelines/flights/decisions")
        new = await client.http.get(
            "/api/v1/pipelines/flights/decisions", headers={"Authorization": "Bearer a-new-secret"}
        )
    assert (old.status_code, new.status_code) == (401, 200)


def _without(key: str, body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != key}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda body: {**body, "version": "3"}, "version: Input should be '4'"),
        (lambda body: _without("version", body), "version: Field required"),
        (lambda body: {**body, "alerts": []}, "alerts: Tuple should have at least 1 item"),
        (
            lambda body: {**body, "alerts": [_without("fingerprint", body["alerts"][0])]},
            "alerts.0.fingerprint: Field required",
        ),
        (lambda body: {**body, "alerts": [{**body["alerts"][0], "startsAt": "soon"}]}, "alerts.0.startsAt: "),
        (
            lambda body: {**body, "alerts": [{**body["alerts"][0], "startsAt": "2026-01-01T00:00:00"}]},
            "alerts.0.startsAt: ",
        ),
        (lambda body: {**body, "alerts": [{**body["alerts"][0], "status": "maybe"}]}, "alerts.0.status: "),
        (lambda body: {**body, "receiver": "\0"}, "the body holds a NUL character"),
        (lambda body: [], "Input should be an object"),
    ],
)
async def test_what_is_not_a_notification_is_refused_with_the_field(
    world: Any, make_alert: Any, make_notification: Any, spoil: Any, says: str
) -> None:
    async with world.controller() as client:
        answer = await client.http.post("/api/v1/alerts", json=spoil(make_notification(make_alert())))
        assert answer.status_code == 400
        assert says in answer.json()["error"]
        assert await client.decisions() == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'"\\ud800"', b"null"])
async def test_what_is_not_json_is_refused(world: Any, body: bytes) -> None:
    async with world.controller() as client:
        assert (await client.http.post("/api/v1/alerts", content=body)).status_code == 400


async def test_a_body_over_a_megabyte_is_refused(world: Any, make_alert: Any, make_notification: Any) -> None:
    huge = make_notification(make_alert()) | {"externalURL": "x" * 1024 * 1024}
    async with world.controller() as client:
        answer = await client.http.post("/api/v1/alerts", json=huge)
    assert answer.status_code == 413
    assert "more than 1048576 bytes" in answer.json()["error"]


async def test_a_label_of_any_length_fits(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        answer = await client.alert(make_alert(pipeline="p" * 100_000, name="n" * 100_000))
    assert answer.status_code == 200


async def test_with_the_ledger_away_alertmanager_is_told_to_come_again_and_nothing_is_lost(
    world: Any, make_alert: Any
) -> None:
    world.validated("flights", 3)
    async with world.controller() as client:
        with world.database.away():
            answer = await client.alert(make_alert())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert (await client.http.get("/readyz")).status_code == 503
            assert (await client.http.get("/healthz")).status_code == 200
            assert (await client.metrics())["perennial_controller_ledger_up"] == 0
        assert (await client.alert(make_alert())).status_code == 200
        await client.until(lambda: client.airflow.of("flights"))
        assert (await client.metrics())["perennial_controller_ledger_up"] == 1


async def test_a_controller_that_starts_before_its_database_waits_for_it(world: Any, make_alert: Any) -> None:
    from perennial_controller.app import make_app
    from perennial_controller.controller import Controller

    with world.database.away():
        controller = Controller.of(world.settings())
        app = make_app(controller)
        import httpx

        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://c") as http,
        ):
            assert (await http.get("/readyz")).status_code == 503
    async with world.controller() as client:
        assert (await client.alert(make_alert())).status_code == 200
