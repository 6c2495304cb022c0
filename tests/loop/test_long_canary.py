"""A canary that takes longer than everything it runs on: between two looks nothing is there to be killed."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
from small_platform import SUMMER, WINTER, Loop, eventually, trips

from perennial_cli.clients.airflow import Task
from perennial_registry.registry import Registry

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600)]


def test_a_canary_that_waits_holds_no_process_and_survives_a_kill_of_everything(loop: Loop) -> None:
    loop.deliver("patient", "2024-01", trips(WINTER, "2024-01-01", 31, seed=1))
    eventually("Airflow to know the DAG", lambda: loop.airflow.has_dag("patient"))
    assert loop.followed(loop.controller.request_run("patient", "the first model", "tester")).succeeded
    loop.deliver("patient", "2024-03", trips(SUMMER, "2024-03-01", 31, seed=3))
    decision = eventually("a run of its own", lambda: _accepted(loop))
    run_id = str(decision.run_id)

    def analysis() -> Task:
        return next(task for task in loop.airflow.tasks("patient", run_id) if task.id == "analyse_50")

    def look() -> dict[str, Any]:
        found: dict[str, Any] = loop.airflow.xcom("patient", run_id, "analyse_50", "result") or {}
        return found

    eventually("the first wait that is long", lambda: analysis().state == "deferred", 150)
    before = look()
    assert (before["verdict"], before["outputs"]["standing"]) == ("pending", "inconclusive")
    assert before["outputs"]["watched_seconds"] >= 40
    assert _steps_of(loop) == []
    loop.kill()
    loop.up()
    after = eventually("a look after the restart", lambda: found if (found := look()) != before else None, 150)
    assert after["verdict"] == "pending"
    assert after["state"]["since"] == before["state"]["since"], "it is the same watch"
    assert after["outputs"]["watched_seconds"] >= before["outputs"]["watched_seconds"] + 50
    assert analysis().attempt == 1
    with Registry(loop.platform.need("mlflow_url")) as registry:
        assert registry.route("patient").weights == {"1": 0.5, "2": 0.5}


def _accepted(loop: Loop) -> Any:
    decision = loop.controller.request_run("patient", "summer", "tester")
    return decision if decision.decision == "accepted" else None


def _steps_of(loop: Loop) -> list[str]:
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if "perennial_steps" in line and str(loop.home.path) in line]
