"""A run that was accepted reaches Airflow, once, whatever happens between."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from perennial_controller.outbox import backoff

UNAVAILABLE: list[tuple[str, Callable[[], Response]]] = [
    ("the DAG is not there yet", lambda: JSONResponse({"detail": "Dag with dag_id: 'flights' not found"}, 404)),
    (
        "the DAG's file is broken",
        lambda: JSONResponse({"detail": "Dag with dag_id: 'flights' has import errors and cannot be triggered"}, 400),
    ),
    ("Airflow has an error of its own", lambda: JSONResponse({"detail": "boom"}, 500)),
    ("a proxy answers for Airflow", lambda: Response("<html>502</html>", 502)),
    ("Airflow is busy", lambda: JSONResponse({"detail": "slow down"}, 429)),
]


@pytest.mark.parametrize("answer", [row[1] for row in UNAVAILABLE], ids=[row[0] for row in UNAVAILABLE])
async def test_a_run_that_airflow_does_not_take_now_is_delivered_later(
    world: Any, make_alert: Any, answer: Callable[[], Response]
) -> None:
    world.validated("flights", 3)
    world.airflow.misbehave = answer
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        await client.until(lambda: len(world.airflow.posts) >= 3)
        row = await client.decision(id)
        metrics = await client.metrics()
        world.airflow.misbehave = lambda: None
        await client.until(lambda: world.airflow.of("flights"))

        async def delivered() -> dict[str, Any] | None:
            row = await client.decision(id)
            return row if row["delivery"] == "delivered" else None

        done = await client.until(delivered)
        after = await client.metrics()
    assert (row["decision"], row["delivery"]) == ("accepted", "pending")
    assert str(answer().status_code) in row["last_error"]
    assert metrics["perennial_controller_backlog"] == 1
    assert metrics["perennial_controller_oldest_undelivered_seconds"] > 0
    assert metrics['perennial_controller_deliveries_total{pipeline="flights",result="away"}'] >= 2
    assert done["last_error"] is None
    assert done["attempts"] >= 4
    assert after["perennial_controller_backlog"] == 0
    assert after["perennial_controller_oldest_undelivered_seconds"] == 0
    assert len(world.airflow.of("flights")) == 1
    assert {body["dag_run_id"] for body in world.airflow.posts} == {done["run_id"]}


async def test_airflow_that_does_not_answer_is_asked_again(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    world.airflow.hang_after = True  # the run is made, and the controller does not hear of it
    async with world.controller(http_timeout=0.5) as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]
        await client.until(lambda: len(world.airflow.posts) >= 2)

        async def delivered() -> bool:
            return bool((await client.decision(id))["delivery"] == "delivered")

        await client.until(delivered)
        metrics = await client.metrics()
    assert metrics['perennial_controller_deliveries_total{pipeline="flights",result="already_there"}'] == 1
    assert len(world.airflow.of("flights")) == 1


async def test_a_run_that_airflow_will_never_take_is_given_up_and_holds_nothing(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    world.airflow.misbehave = lambda: JSONResponse({"detail": "Dag 'flights' does not allow manual runs"}, 400)
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]

        async def failed() -> dict[str, Any] | None:
            row = await client.decision(id)
            return row if row["delivery"] == "failed" else None

        row = await client.until(failed)

        async def successor() -> int:
            return int((await client.decision(id))["successor_id"] or 0)

        await client.decided(await client.until(successor), "waiting_for_data")  # and does not ask Airflow in a loop
        assert len(world.airflow.posts) == 1
        world.airflow.misbehave = lambda: None
        (second,) = (await client.alert(make_alert(fingerprint="f2"))).json()["decisions"]
        await client.decided(second, "accepted")
    assert row["outcome"] == "refused"
    assert "does not allow manual runs" in row["last_error"]


async def test_a_token_that_has_run_out_is_renewed(world: Any, make_alert: Any) -> None:
    world.validated("flights", 3)
    async with world.controller(watch_every=3600) as client:
        await client.alert(make_alert())
        (run,) = await client.until(lambda: world.airflow.of("flights"))
        world.airflow.revoke_tokens()
        world.airflow.runs.clear()
        logins = world.airflow.logins
        await client.http.post("/api/v1/pipelines/flights/data", json={})
        await client.until(lambda: world.airflow.of("flights.data"))
    assert run["conf"]["reason"]["kind"] == "alert"
    assert world.airflow.logins == logins + 1


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        ('{"username": "controller", "password": "wrong"}', "Airflow answered 401 to the login"),
        ("{}", "Airflow's credentials cannot be read (KeyError)"),
        (None, "Airflow's credentials cannot be read (FileNotFoundError)"),
    ],
)
async def test_wrong_credentials_are_said_and_may_be_mended_while_it_runs(
    world: Any, make_alert: Any, credentials: str | None, says: str
) -> None:
    world.validated("flights", 3)
    file = world.folder / "airflow.json"
    right = file.read_text()
    file.unlink()
    if credentials is not None:
        file.write_text(credentials)
    async with world.controller() as client:
        (id,) = (await client.alert(make_alert())).json()["decisions"]

        async def said() -> bool:
            return says in str((await client.decision(id))["last_error"])

        await client.until(said)
        file.write_text(right)
        await client.until(lambda: world.airflow.of("flights"))
    assert "s3cret" not in str(await asyncio.to_thread(world.database.run, "SELECT * FROM perennial_decisions"))


@contextmanager
def process(world: Any, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The controller as a process of its own."""
    environment = {**os.environ, **world.platform.to_environment(), "PERENNIAL_PORT": str(port)}
    with (world.folder / "controller.log").open("ab") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "perennial_controller"], env=environment, stdout=log, stderr=log
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait(10)


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("hang", ["hang_before", "hang_after"])
def test_a_controller_killed_while_it_delivers_starts_exactly_one_run_after_its_restart(
    world: Any, make_alert: Any, make_notification: Any, waiting: Any, closed_port: int, hang: str
) -> None:
    world.validated("flights", 3)
    setattr(world.airflow, hang, True)
    url, headers = f"http://127.0.0.1:{closed_port}", {"Authorization": "Bearer correct-horse"}
    with process(world, closed_port) as controller:
        waiting(lambda: _ready(closed_port), "the controller")
        answer = httpx.post(f"{url}/api/v1/alerts", json=make_notification(make_alert()), headers=headers)
        assert answer.status_code == 200
        waiting(lambda: world.airflow.posts, "the delivery to begin")
        os.kill(controller.pid, signal.SIGKILL)
        controller.wait(10)
    assert len(world.airflow.of("flights")) == (1 if hang == "hang_after" else 0)
    world.airflow.hang_before = world.airflow.hang_after = False
    with process(world, closed_port) as controller:
        waiting(lambda: _ready(closed_port), "the controller")
        httpx.post(f"{url}/api/v1/alerts", json=make_notification(make_alert()), headers=headers)

        def delivered() -> bool:
            (row,) = httpx.get(f"{url}/api/v1/pipelines/flights/decisions", headers=headers).json()["decisions"]
            return bool(row["delivery"] == "delivered")

        waiting(delivered, "the delivery")
        controller.terminate()
        assert controller.wait(30) == 0, "a clean end"
    assert len(world.airflow.of("flights")) == 1
    assert len({body["dag_run_id"] for body in world.airflow.posts}) == 1
    log = (world.folder / "controller.log").read_text()
    assert "Traceback" not in log
    assert "correct-horse" not in log


def test_a_controller_killed_before_it_decides_decides_after_its_restart(
    world: Any, make_alert: Any, make_notification: Any, waiting: Any, closed_port: int
) -> None:
    world.validated("flights", 3)
    world.registry.misbehave = lambda: JSONResponse({"error_code": "TEMPORARILY_UNAVAILABLE"}, 503)
    url, headers = f"http://127.0.0.1:{closed_port}", {"Authorization": "Bearer correct-horse"}
    with process(world, closed_port) as controller:
        waiting(lambda: _ready(closed_port), "the controller")
        httpx.post(f"{url}/api/v1/alerts", json=make_notification(make_alert()), headers=headers)

        def says_why() -> bool:
            (row,) = httpx.get(f"{url}/api/v1/pipelines/flights/decisions", headers=headers).json()["decisions"]
            return bool(row["decision"] == "received" and "the registry answered 503" in row["reason"])

        waiting(says_why, "the reason")
        os.kill(controller.pid, signal.SIGKILL)
    world.registry.misbehave = lambda: None
    with process(world, closed_port):
        waiting(lambda: world.airflow.of("flights"), "the run")
    assert len(world.airflow.of("flights")) == 1


def test_backoff_doubles_to_its_limit_and_never_overflows() -> None:
    assert 0.375 <= backoff(1, 30) <= 0.5
    assert 0.75 <= backoff(2, 30) <= 1.0
    assert 22.5 <= backoff(10_000, 30) <= 30


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PERENNIAL_DATABASE_URL", "", "PERENNIAL_DATABASE_URL is not set"),
        ("PERENNIAL_DATABASE_URL", "mysql://root:hunter2@db/x", "not the URL of a PostgreSQL database"),
        ("PERENNIAL_DATABASE_URL", "hunter2", "not the URL of a PostgreSQL database"),
        (
            "PERENNIAL_TOKEN_FILE",
            "/nowhere",
            "PERENNIAL_TOKEN_FILE=/nowhere: the token cannot be read: No such file or directory",
        ),
        ("PERENNIAL_PORT", "http", "PERENNIAL_PORT: 'http' is not a port"),
        ("PERENNIAL_HOST", "192.0.2.1", "cannot listen on 192.0.2.1:"),
        ("MLFLOW_TRACKING_URI", "sqlite:///x", "'sqlite' is not a way to reach the registry"),
        ("PERENNIAL_PUBLIC_AIRFLOW_URL", "javascript:x", "expected: the address that a browser reaches it by: http://"),
    ],
)
def test_a_wrong_environment_ends_the_start_with_a_sentence(
    world: Any, closed_port: int, variable: str, value: str, says: str
) -> None:
    environment = {**os.environ, **world.platform.to_environment(), "PERENNIAL_PORT": str(closed_port), variable: value}
    command = [sys.executable, "-m", "perennial_controller"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr
