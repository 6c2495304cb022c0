"""The loop on one machine, with every part real. The tests tell one story and run in the order in which they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pytest
from dashboard_queries import answered, every_query, values
from load import Load
from small_platform import SUMMER, WINTER, Loop, eventually, trips

from perennial_cli.clients.airflow import Task
from perennial_cli.clients.controller import Decision
from perennial_cli.embedded import supervisor
from perennial_dashboards.render import BOARDS
from perennial_registry.registry import Registry
from perennial_spec import names

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600)]


def rows_of(table: pa.Table) -> list[dict[str, object]]:
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in table.drop_columns(["late"]).to_pylist()
    ]


def champion(loop: Loop) -> str:
    """The version that answers all rows, once the servers have seen the last change of the route."""

    def alone() -> str | None:
        versions = loop.server.versions_that_answer("trips", rows_of(trips(SUMMER, "2024-04-01", 1)))
        return versions[0] if len(versions) == 1 else None

    return eventually("one version that answers all", alone, 5)


def test_the_first_run_trains_a_champion_that_answers(loop: Loop) -> None:
    eventually("Airflow to know the DAG", lambda: loop.airflow.has_dag(names.dag_id("trips")))
    done = loop.followed(loop.controller.request_run("trips", "the first model", "tester"))
    assert done.succeeded, [(task.id, task.state) for task in done.tasks]
    eventually("version 1 to answer", lambda: loop.server.is_ready("trips") and champion(loop) == "1")


def test_a_broken_pipeline_is_an_import_error_and_leaves_the_others_running(loop: Loop) -> None:
    errors = eventually("the import error", loop.airflow.import_errors)
    assert any("data.timestmp is not a word" in message and "timestamp" in message for _, message in errors)
    assert loop.airflow.has_dag(names.dag_id("trips"))
    assert not loop.airflow.has_dag(names.dag_id("broken"))


def test_a_challenger_that_is_no_better_never_takes_traffic(loop: Loop) -> None:
    def ask() -> Decision | None:
        decision = loop.controller.request_run("trips", "once more on the same data", "tester")
        return decision if decision.dag_id else None  # merged, while the controller has not seen the last run end

    done = loop.followed(eventually("a run of its own", ask))
    assert done.run.state == "failed"
    evaluate = done.task("evaluate")
    assert evaluate is not None
    assert evaluate.state == "failed"
    assert champion(loop) == "1"


def with_distance(table: pa.Table, value: object) -> pa.Table:
    return table.set_column(table.schema.get_field_index("distance"), "distance", pa.array([value] * len(table)))


SPOILED: dict[str, Callable[[pa.Table], pa.Table]] = {
    "column-missing": lambda table: table.drop_columns(["at"]),
    "wrong-type": lambda table: with_distance(table, "far"),
    "expectation-not-met": lambda table: with_distance(table, -1.0),
}


@pytest.mark.parametrize(("file", "spoil"), SPOILED.items())
def test_a_bad_batch_stops_before_anything_is_promoted(
    loop: Loop, file: str, spoil: Callable[[pa.Table], pa.Table]
) -> None:
    loop.deliver("trips", file, spoil(trips(SUMMER, "2024-03-01", 2, seed=9)))
    try:
        done = loop.followed(loop.controller.announce_data("trips", "a bad batch"))
        assert done.run.state == "failed"
        assert champion(loop) == "1"
    finally:
        (loop.home.lake / "trips" / f"{file}.parquet").unlink()


def test_drift_closes_the_loop_and_no_request_fails(loop: Loop) -> None:
    loop.deliver("trips", "2024-03", trips(SUMMER, "2024-03-01", 31, seed=3))
    assert loop.followed(loop.controller.announce_data("trips", "March arrived")).succeeded
    traffic = rows_of(trips(SUMMER, "2024-04-01", 30, seed=4))
    statuses: list[int] = []
    versions: list[str] = []
    with httpx.Client(base_url=loop.platform.need("server_url"), timeout=10) as client:
        began, sent, run = time.monotonic(), 0, None
        while time.monotonic() - began < 240:
            batch = [traffic[(sent + i) % len(traffic)] for i in range(10)]
            sent += 10
            response = client.post("/pipelines/trips/invocations", json={"dataframe_records": batch})
            statuses.append(response.status_code)
            versions += response.headers.get("X-Perennial-Version", "").split(",")
            run = run or _alert_decision(loop)
            if (
                run
                and (now := loop.airflow.run(str(run.dag_id), str(run.run_id)))
                and now.state in {"success", "failed"}
            ):
                break
            time.sleep(0.03)
    assert run is not None, "the drift alert started no run"
    assert loop.followed(run).succeeded
    assert set(statuses) == {200}
    assert {"1", champion(loop)} <= {version.strip() for version in versions}
    assert int(champion(loop)) > 1


def test_the_loop_tells_how_it_is_doing(loop: Loop) -> None:
    def told() -> dict[str, float] | None:
        text = httpx.get(f"{loop.platform.controller_url}/metrics", timeout=30).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        figures = {name: float(value) for name, value in lines}
        return figures if figures[f'{names.RUNS}{{outcome="promoted",pipeline="trips"}}'] >= 2 else None

    figures = eventually("two promotions", told)
    rejected = figures[f'{names.RUNS}{{outcome="rejected",pipeline="trips"}}']
    assert rejected >= 1, "the challenger that is no better"
    assert figures[f'{names.RUN_FAILURES_IN_A_ROW}{{pipeline="trips"}}'] == 0
    assert figures[f'{names.RETRAININGS_SINCE_PROMOTION}{{pipeline="trips"}}'] == 0
    assert time.time() - figures[names.WATCHDOG_RECEIVED] < 120, "Alertmanager sends what fires always"
    assert httpx.get(f"{loop.platform.controller_url}/readyz", timeout=30).text == "ok\n"


def test_why_names_the_feature_that_moved_and_what_came_of_it(loop: Loop) -> None:
    decision = _alert_decision(loop)
    assert decision is not None
    done = perennial(loop, "why", "trips", "--decision", str(decision.id))
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())  # lines are wrapped to the width
    assert f"trips: its inputs have drifted; version {champion(loop)} was trained and is champion since" in told
    assert "distance: PSI" in told
    assert "threshold 0.50" in told
    assert f"decision {decision.id}: accepted - drift: data version" in told
    assert "holds roc_auc" in told
    assert "promote: success" in told
    document = json.loads(perennial(loop, "why", "trips", "--decision", str(decision.id), "--json").stdout)
    worst = document["figures"]["drift"]["features"][0]
    assert worst["feature"] == "distance"
    assert sum(each["reference"] for each in worst["bins"]) == pytest.approx(1, abs=0.01)
    assert sum(each["live"] for each in worst["bins"]) == pytest.approx(1, abs=0.01)
    assert perennial(loop, "why", "trips").returncode == 0


def test_the_report_marks_the_retraining(loop: Loop, tmp_path: Path) -> None:
    decision = _alert_decision(loop)
    assert decision is not None
    file = tmp_path / "report.html"
    done = perennial(loop, "report", "trips", "--since", "30m", "--output", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    text = file.read_text()
    for chart in ("drift", "routes", "requests"):
        assert f'id="{chart}-wide-retraining-{decision.id}"' in text
    assert f"version {champion(loop)}" in text
    assert names.ALERT_FEATURE_DRIFT in text


def load_on(loop: Loop) -> Load:
    traffic = rows_of(trips(SUMMER, "2024-05-01", 10, seed=5))[:10]
    return Load([loop.platform.need("server_url")], "/pipelines/trips/invocations", traffic)


def test_a_regression_of_the_new_champion_is_rolled_back_by_the_platform_within_seconds(loop: Loop) -> None:
    bad, good = champion(loop), "1"
    labels = {
        "alertname": names.ALERT_REGRESSION,
        "pipeline": "trips",
        "version": bad,
        "action": "rollback",
        "what": "errors",
    }
    alert = {"labels": labels, "annotations": {"summary": f"trips: version {bad} fails"}}
    load = load_on(loop)
    with load.on():
        sent = httpx.post(f"{loop.platform.alertmanager_url}/api/v2/alerts", json=[alert], timeout=10)
        assert sent.is_success, sent.text
        row = eventually("the rollback", lambda: _rolled_back(loop))
        time.sleep(1)
    assert (row.outcome, row.model_version) == ("success", good)
    assert load.failures == []
    assert load.statuses == {200}
    decided = datetime.fromisoformat(row.trail[-1]["at"]).timestamp()
    assert load.last_of(bad) - decided < 5, "what is promised, from the decision to the last answer of the bad version"
    assert champion(loop) == good
    told = perennial(loop, "why", "trips", "--decision", str(row.id))
    assert f"the platform has taken the traffic back to version {good}" in " ".join(told.stdout.split())
    again = perennial(loop, "promote", "trips", "--version", bad, "--force")
    assert again.returncode == 0, again.stderr


def _rolled_back(loop: Loop) -> Decision | None:
    found = (row for row in loop.controller.decisions("trips") if row.rolls_back and row.outcome)
    return next(found, None)


def test_a_person_takes_a_promotion_back_under_load_and_no_request_fails(loop: Loop) -> None:
    bad, good, load = champion(loop), "1", load_on(loop)
    with load.on():
        done = perennial(loop, "rollback", "trips", "--reason", "the test prefers the old one")
        returned = time.time()
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    assert f"{bad}: 100% -> {good}: 100%; rolled back: {bad}" in done.stdout
    assert f"answer with version {good}" in done.stdout
    assert load.failures == []
    assert load.statuses == {200}
    assert {answer.version for answer in load.answers if answer.at > returned + 0.1} == {good}
    assert champion(loop) == good
    noted = next(d for d in loop.controller.decisions("trips") if d.kind == "rollback")
    assert (noted.decision, noted.summary) == ("noted", "the test prefers the old one")
    again = perennial(loop, "rollback", "trips", "--to", bad, "--force")
    assert again.returncode == 0, again.stderr
    assert champion(loop) == bad


def test_a_pause_is_told_and_ended(loop: Loop) -> None:
    paused = perennial(loop, "pause", "trips", "--for", "1h", "--reason", "a look at it")
    assert paused.returncode == 0, paused.stderr
    assert "paused: trips, until 20" in paused.stdout
    assert "a look at it" in paused.stdout
    assert perennial(loop, "resume", "trips").stdout == "trips is not paused\n"
    unknown = perennial(loop, "pause", "tirps")
    assert unknown.returncode == 1
    assert "there is no pipeline named 'tirps'" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_a_person_rejects_one_model_and_approves_the_next(loop: Loop) -> None:
    assert perennial(loop, "approve", "signed").returncode == 3  # nothing waits
    first = loop.controller.request_run("signed", "the first model", "tester")
    asked = eventually("the question", lambda: loop.airflow.questions("signed"), seconds=120)
    assert [question.run_id for question in asked] == [first.run_id]
    shown = perennial(loop, "approve", "signed", "--dry-run")
    assert "**Version 1** against champion **none**" in shown.stdout
    assert "| roc_auc |" in shown.stdout
    wrong = perennial(loop, "reject", "signed", "--reason", "no", "--run", "another")
    assert wrong.returncode == 1
    assert "run another does not wait for an answer" in wrong.stderr
    assert str(first.run_id) in wrong.stderr
    assert perennial(loop, "reject", "signed", "--reason", "not before the holidays").returncode == 0
    ended = loop.followed(first)
    assert (ended.run.state, {task.id: task.state for task in ended.tasks}["signoff"]) == ("failed", "failed")
    assert signed_off(loop, "1")["reason"] == "not before the holidays"
    assert not loop.server.is_ready("signed")
    second = eventually("the ledger to know that the first has ended", lambda: asked_again(loop))
    eventually("the question", lambda: loop.airflow.questions("signed"), seconds=180)
    assert perennial(loop, "approve", "signed", "--reason", "now it may").returncode == 0
    done = loop.followed(second)
    assert done.succeeded, [
        (task.id, task.state, loop.airflow.xcom("signed", str(second.run_id), task.id, "result")) for task in done.tasks
    ]
    assert signed_off(loop, "2") == signed_off(loop, "2") | {"answer": "approved", "reason": "now it may"}
    eventually("version 2 to answer", lambda: loop.server.is_ready("signed"))


def asked_again(loop: Loop) -> Decision | None:
    decision = loop.controller.request_run("signed", "again", "tester")
    return decision if decision.decision == "accepted" else None


def signed_off(loop: Loop, version: str) -> dict[str, str]:
    with Registry(loop.platform.need("mlflow_url")) as registry:
        return dict(json.loads(registry.get("signed", version).tags[names.TAG_SIGN_OFF]))


def test_the_story_is_told_in_the_terminal_and_as_a_page_with_every_step(loop: Loop) -> None:
    story = json.loads(perennial(loop, "history", "trips", "--limit", "100", "--json").stdout)
    drifted = [
        moment for moment in story["moments"] if moment["heading"] == names.ALERT_FEATURE_DRIFT and moment["run"]
    ]
    run = next(moment["run"] for moment in drifted if moment["run"]["verdict"] in {"promoted", "rolled_back"})
    steps = {step["task"]: step for step in run["steps"]}
    assert steps["evaluate"]["gates"]
    assert steps["promote"]["verdict"] == "pass"
    told = perennial(loop, "history", "trips", "--limit", "100")
    assert told.returncode == 0, told.stderr
    assert "PerennialFeatureDrift" in told.stdout
    assert "evaluate pass" in told.stdout
    assert "\x1b" not in told.stdout
    watched = perennial(loop, "status", "trips", "--watch", "--until-done")
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout.startswith("trips ")
    url, token = loop.platform.controller_url, Path(loop.platform.need("token_file")).read_text().strip()
    page = httpx.get(f"{url}/pipelines/trips?limit=100", auth=("ann", token), timeout=30)
    assert page.status_code == 200
    assert f"/dags/trips/runs/{run['run_id']}" in page.text
    assert steps["evaluate"]["summary"].split(":")[0] in page.text
    assert httpx.get(f"{url}/", timeout=30).status_code == 401


def test_what_would_be_decided_and_archived_is_told_and_not_done(loop: Loop) -> None:
    before = loop.controller.decisions("trips")
    rehearsed = perennial(loop, "run", "trips", "--dry-run")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert "would be accepted: a person asked, and no run is active" in rehearsed.stdout
    assert loop.controller.decisions("trips") == before
    retired = perennial(loop, "retire", "trips", "--dry-run")
    assert retired.returncode == 0, retired.stderr
    assert "trips: no versions would be archived" in retired.stdout
    assert "champion" in retired.stdout


def test_a_second_copy_of_an_alert_starts_nothing(loop: Loop) -> None:
    accepted = [d.id for d in loop.controller.decisions("trips") if d.decision == "accepted"]
    assert _post_webhook(loop, _webhook()).status_code in {200, 202}
    once = loop.controller.decisions("trips")
    assert _post_webhook(loop, _webhook()).status_code in {200, 202}
    twice = loop.controller.decisions("trips")
    assert [d.id for d in twice] == [d.id for d in once]
    assert twice[0].duplicates == once[0].duplicates + 1
    assert [d.id for d in twice if d.decision == "accepted"] == accepted  # no new data: there is nothing to train on


def test_every_panel_of_the_dashboards_has_data(loop: Loop) -> None:
    asked = trips(SUMMER, "2024-05-01", 10, seed=5)
    known = [{"entity": row["trip_id"], "label": int(row["late"])} for row in asked.to_pylist()]
    url, variables = loop.platform.need("prometheus_url"), {"pipeline": "trips", "feature": "distance"}
    with httpx.Client(base_url=loop.platform.need("server_url"), timeout=10) as client:
        client.post("/pipelines/trips/feedback", json={"labels": known}).raise_for_status()

        def silent() -> list[str]:
            client.post("/pipelines/trips/invocations", json={"dataframe_records": rows_of(asked)}).raise_for_status()
            every = [each for each in every_query() if not each.query.quiet]
            return [str(each) for each in every if not answered(url, each, variables)]

        began = time.monotonic()
        while (missing := silent()) and time.monotonic() - began < 90:
            time.sleep(1)
    assert missing == []
    for variable in (variable for board in BOARDS for variable in board.variables):
        assert variables[variable.name] in values(url, variable.values, variables)


def test_a_canary_that_waits_holds_no_process_and_survives_a_kill_of_everything(loop: Loop) -> None:
    loop.deliver("patient", "2024-01", trips(WINTER, "2024-01-01", 31, seed=1))
    eventually("Airflow to know the DAG", lambda: loop.airflow.has_dag("patient"))
    assert loop.followed(loop.controller.request_run("patient", "the first model", "tester")).succeeded
    loop.deliver("patient", "2024-03", trips(SUMMER, "2024-03-01", 31, seed=3))
    decision = eventually("a run of its own", lambda: _summer(loop))
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


def _summer(loop: Loop) -> Decision | None:
    decision = loop.controller.request_run("patient", "summer", "tester")
    return decision if decision.decision == "accepted" else None


def _steps_of(loop: Loop) -> list[str]:
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if "perennial_steps" in line and str(loop.home.path) in line]


def test_state_survives_a_kill_of_everything(loop: Loop) -> None:
    version = champion(loop)
    loop.kill()
    loop.up()
    assert champion(loop) == version
    assert any(d.decision == "accepted" for d in loop.controller.decisions("trips"))


def test_down_leaves_no_process_behind(loop: Loop) -> None:
    state = supervisor.status(loop.home)
    assert state is not None
    tree = psutil.Process(state.supervisor.pid).children(recursive=True)
    supervisor.stop(loop.home)
    assert [process for process in tree if _lives(process)] == []
    marked = [p.pid for p in psutil.process_iter() if _belongs(p, loop.home.path)]
    assert marked == []


def perennial(loop: Loop, *args: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a person in the project calls it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
    command = [sys.executable, "-m", "perennial_cli", *args]
    return subprocess.run(
        command, cwd=loop.project, env=clean, capture_output=True, text=True, timeout=120, check=False
    )


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE  # who waits for it is init's business
    except psutil.NoSuchProcess:
        return False


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        return process.pid != os.getpid() and str(home) in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _alert_decision(loop: Loop) -> Decision | None:
    found = loop.controller.decisions("trips")
    return next((d for d in found if d.kind == "alert" and d.decision == "accepted" and d.run_id), None)


def _webhook() -> dict[str, object]:
    alert = {
        "status": "firing",
        "labels": {
            "alertname": names.ALERT_FEATURE_DRIFT,
            "pipeline": "trips",
            "severity": "warning",
            "action": "retrain",
        },
        "annotations": {"summary": "a copy", "description": "a copy"},
        "startsAt": datetime(2024, 1, 1, tzinfo=UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1/",
        "fingerprint": "0123456789abcdef",
    }
    return {
        "version": "4",
        "groupKey": "{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "perennial",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://127.0.0.1/",
        "alerts": [alert],
    }


def _post_webhook(loop: Loop, payload: dict[str, object]) -> httpx.Response:
    token = Path(loop.platform.need("token_file")).read_text().strip()
    return httpx.post(
        f"{loop.platform.controller_url}/api/v1/alerts",
        json=payload,
        headers={"Authorization": f"Bearer {token}"},
        timeout=10,
    )
