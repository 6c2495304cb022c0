"""Whole runs of a DAG in a real Airflow (`dag.test`, SQLite), every step a real process."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState

from perennial_operators import build_dags

Install = Callable[[str], None]
STORY = """
    import pathlib
    log = pathlib.Path(os.environ["STORY"])
    with log.open("a") as file:
        file.write(json.dumps({"step": request.step, "inputs": request.inputs, "params": request.params}) + "\\n")
    share = request.params.get("share")
    if os.environ.get("FAILS") == f"{request.step} {share}" or os.environ.get("FAILS") == request.step:
        done("fail", failure="as told")
    outputs = {"model_version": "7"} if request.step == "train" else {"share": share} if share else {}
    done(outputs=outputs)
"""


@pytest.fixture(scope="module", autouse=True)
def _database() -> None:
    initdb()


@pytest.fixture
def dag(
    airflow_dags: Path, write_pipeline: Any, steps_that: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DAG:
    monkeypatch.setenv("STORY", str(tmp_path / "story"))
    steps_that(STORY)
    return build_dags(write_pipeline(root=airflow_dags / "pipelines").parent)["churn"]


def run(dag: DAG) -> tuple[DagRun, dict[str, str]]:
    found = dag.test()
    with create_session() as session:
        return found, {ti.task_id: str(ti.state) for ti in found.get_task_instances(session=session)}


def story(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "story").read_text().splitlines()]


def test_all_goes_well(dag: DAG, tmp_path: Path) -> None:
    found, states = run(dag)
    assert found.state == DagRunState.SUCCESS
    assert {task_id for task_id, state in states.items() if state != "success"} == {"stopped", "rollback"}
    told = story(tmp_path)
    assert [(one["step"], one["params"].get("share")) for one in told] == [
        ("ingest", None),
        ("validate", None),
        ("train", None),
        ("evaluate", None),
        ("deploy", 0.1),
        ("analyse", 0.1),
        ("deploy", 0.5),
        ("analyse", 0.5),
        ("promote", None),
    ]
    last = told[-1]["inputs"]
    assert set(last) == {"ingest", "validate", "train", "evaluate", "deploy", "analyse"}
    assert last["train"] == {"model_version": "7"}
    assert last["deploy"] == {"share": 0.5}


def test_a_failed_analysis_is_rolled_back_and_the_run_fails(
    dag: DAG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "analyse 0.5")
    found, states = run(dag)
    assert found.state == DagRunState.FAILED
    assert (states["analyse_50"], states["promote"], states["rollback"]) == ("failed", "upstream_failed", "success")
    told = story(tmp_path)
    assert [one["step"] for one in told][-2:] == ["analyse", "rollback"]
    assert told[-1]["inputs"]["deploy"] == {"share": 0.5}


def test_a_deployment_that_fails_at_once_is_rolled_back_too(
    dag: DAG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "deploy 0.1")
    found, states = run(dag)
    assert (found.state, states["rollback"]) == (DagRunState.FAILED, "success")


def test_a_failed_gate_deploys_nothing_and_rolls_nothing_back(
    dag: DAG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "evaluate")
    found, states = run(dag)
    assert found.state == DagRunState.FAILED
    assert (states["evaluate"], states["deploy_10"], states["rollback"]) == ("failed", "upstream_failed", "skipped")
    assert [one["step"] for one in story(tmp_path)] == ["ingest", "validate", "train", "evaluate"]


def test_an_experiment_that_the_challenger_loses_is_rolled_back_and_the_run_fails(
    airflow_dags: Path, write_pipeline: Any, steps_that: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORY", str(tmp_path / "story"))
    monkeypatch.setenv("FAILS", "experiment")
    steps_that(STORY)
    folder = write_pipeline(root=airflow_dags / "pipelines", deployment={"strategy": "ab"})
    found, states = run(build_dags(folder.parent)["churn"])
    assert found.state == DagRunState.FAILED
    assert (states["experiment"], states["promote"], states["rollback"]) == ("failed", "upstream_failed", "success")
    assert [(one["step"], one["params"]) for one in story(tmp_path)][-3:] == [
        ("deploy", {"share": 0.5}),
        ("experiment", {"share": 0.5}),
        ("rollback", {}),
    ]


LOOKS = """
    import pathlib
    log = pathlib.Path(os.environ["STORY"])
    with log.open("a") as file:
        file.write(json.dumps({"step": request.step, "state": request.state, "process": os.getpid()}) + "\\n")
    looks = request.state.get("looks", 0) + 1
    if request.step != "analyse" or looks > 3:
        done(outputs={"model_version": "7"} if request.step == "train" else {})
    if looks == 3 and not os.path.exists(log.with_name("died")):
        log.with_name("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    done("pending", again_after=0.2, state={"looks": looks})
"""


def test_looks_are_processes_of_their_own_and_what_they_know_survives_a_retry(
    airflow_dags: Path, write_pipeline: Any, steps_that: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORY", str(tmp_path / "story"))
    steps_that(LOOKS)
    deployment = {"steps": ["10%", "100%"]}
    folder = write_pipeline(
        root=airflow_dags / "pipelines", deployment=deployment, resources={"analyse": {"retries": 1}}
    )
    dag = build_dags(folder.parent)["churn"]
    cast("Any", dag.get_task("analyse_10")).retry_delay = timedelta(seconds=0)
    found, states = run(dag)
    assert (found.state, states["analyse_10"]) == (DagRunState.SUCCESS, "success")
    looks = [one for one in story(tmp_path) if one["step"] == "analyse"]
    assert [one["state"].get("looks", 0) for one in looks] == [0, 1, 2, 2, 3]
    assert len({one["process"] for one in looks}) == 5
    assert next(ti.try_number for ti in found.get_task_instances() if ti.task_id == "analyse_10") == 2


JUDGED_AGAIN = """
    import pathlib
    log = pathlib.Path(os.environ["STORY"])
    story = log.read_text().splitlines() if log.exists() else []
    with log.open("a") as file:
        told = {"step": request.step, "share": request.params.get("share"), "inputs": request.inputs}
        file.write(json.dumps(told) + "\\n")
    if request.step == "deploy" and request.params["share"] == 0.5 and "evaluate" not in story[-1].split(",")[0]:
        done("pending", again_after=0.0, first="evaluate")
    if request.step == "evaluate" and request.params and os.environ.get("FAILS"):
        done("fail", failure="no better than the new champion")
    done(outputs={"model_version": "7"} if request.step == "train" else {})
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_challenger_whose_champion_changed_is_evaluated_again_in_the_task_that_found_out(
    airflow_dags: Path,
    write_pipeline: Any,
    steps_that: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    monkeypatch.setenv("STORY", str(tmp_path / "story"))
    if fails:
        monkeypatch.setenv("FAILS", "1")
    steps_that(JUDGED_AGAIN)
    found, states = run(build_dags(write_pipeline(root=airflow_dags / "pipelines").parent)["churn"])
    told = [(one["step"], one["share"]) for one in story(tmp_path)]
    place = told.index(("deploy", 0.5))
    assert told[place + 1] == ("evaluate", 0.5)
    assert set(story(tmp_path)[place + 1]["inputs"]) >= {"ingest", "train"}
    after = [step for step, _ in told[place + 2 :]]
    if fails:
        assert after == ["rollback"]
        assert (states["deploy_50"], states["rollback"], found.state) == ("failed", "success", DagRunState.FAILED)
    else:
        assert after == ["deploy", "analyse", "promote"]
        assert found.state == DagRunState.SUCCESS
