from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, BaseOperator, TriggerRule
from airflow.serialization.serialized_objects import DagSerialization

from perennial_operators import build_dags, pipeline_dag
from perennial_operators.local import LocalStepOperator
from perennial_spec.canvas import Canvas
from perennial_spec.errors import PlatformError
from perennial_spec.load import Pipeline, load_pipeline

PROJECT = Path(__file__).parents[2]


def read(folder: Path) -> DagBag:
    return DagBag(folder, collect_dags=True)


def edges(dag: DAG) -> dict[str, set[str]]:
    return {str(found.task_id): {str(i) for i in found.downstream_task_ids} for found in dag.tasks}


def the_task(dag: DAG, task_id: str) -> BaseOperator:
    return cast("BaseOperator", dag.get_task(task_id))


def training_dag(write_pipeline: Any, **changes: object) -> DAG:
    return build_dags(write_pipeline(**changes).parent)["churn"]


def test_a_pipeline_becomes_a_training_dag_and_a_data_dag(dags_folder: Path, write_pipeline: Any) -> None:
    write_pipeline(root=dags_folder / "pipelines")
    bag = read(dags_folder)
    assert bag.import_errors == {}
    assert sorted(bag.dags) == ["churn", "churn.data", "churn.retire"]
    assert edges(bag.dags["churn.data"]) == {"ingest": {"validate"}, "validate": set()}


def test_airflow_can_store_every_dag(dags_folder: Path, write_pipeline: Any) -> None:
    write_pipeline(
        root=dags_folder / "pipelines", deployment={"approval": "required"}, retraining={"schedule": "@daily"}
    )
    for dag in read(dags_folder).dags.values():
        stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        assert set(stored.task_ids) == set(dag.task_ids)


def test_a_canary_is_deployed_and_judged_share_by_share(write_pipeline: Any) -> None:
    dag = training_dag(write_pipeline, deployment={"steps": ["5%", "12.5%", "100%"]})
    found = edges(dag)
    line, name = [], "ingest"
    while name != "promoted":
        line.append(name)
        (name,) = found[name] - {"begun", "stopped"}
    assert line == [
        *("ingest", "validate", "train", "evaluate"),
        *("deploy_5", "analyse_5", "deploy_12_5", "analyse_12_5", "promote"),
    ]
    assert cast("LocalStepOperator", the_task(dag, "deploy_12_5")).call.params == {"share": 0.125}


def test_a_replacement_is_only_promoted(write_pipeline: Any) -> None:
    found = edges(training_dag(write_pipeline, deployment={"strategy": "replace"}))
    assert found["evaluate"] == {"promote"}
    assert found["promote"] == {"promoted", "begun", "stopped"}


@pytest.mark.parametrize(("strategy", "experiment"), [("ab", {"share": "20%"}), ("bandit", {"explore": "5%"})])
def test_an_experiment_is_deployed_once_compared_and_then_promoted(
    write_pipeline: Any, strategy: str, experiment: dict[str, str]
) -> None:
    dag = training_dag(write_pipeline, deployment={"strategy": strategy, "experiment": experiment})
    share = 0.2 if strategy == "ab" else 0.5
    found = edges(dag)
    assert found["evaluate"] == {"deploy"}
    assert found["deploy"] == {"experiment", "begun", "stopped"}
    assert found["experiment"] == {"promote", "stopped"}
    assert found["promote"] == {"promoted", "stopped"}
    assert cast("LocalStepOperator", the_task(dag, "deploy")).call.params == {"share": share}
    assert the_task(dag, "experiment").execution_timeout == timedelta(hours=1, minutes=5)  # one look's
    assert f"{share:.0%}, 100% of the traffic, when an experiment of at most 2w says so ({strategy})" in str(dag.doc_md)


def test_the_rollback_needs_a_rollout_that_began_and_failed(write_pipeline: Any) -> None:
    dag = training_dag(write_pipeline)
    assert the_task(dag, "rollback").upstream_task_ids == {"begun", "stopped"}
    assert the_task(dag, "rollback").trigger_rule == TriggerRule.ALL_SUCCESS
    assert the_task(dag, "begun").trigger_rule == TriggerRule.ONE_DONE
    assert the_task(dag, "begun").upstream_task_ids == {"deploy_10"}
    assert the_task(dag, "stopped").trigger_rule == TriggerRule.ONE_FAILED
    rollout = {"deploy_10", "analyse_10", "deploy_50", "analyse_50", "promote"}
    assert the_task(dag, "stopped").upstream_task_ids == rollout
    assert the_task(dag, "promoted").upstream_task_ids == {"promote"}


def test_an_approval_stands_before_the_first_deployment_and_shows_the_evidence(write_pipeline: Any) -> None:
    dag = training_dag(write_pipeline, deployment={"approval": "required"})
    approve = the_task(dag, "approve")
    assert approve.upstream_task_ids == {"evaluate"}
    assert approve.downstream_task_ids == {"signoff"}
    assert the_task(dag, "signoff").downstream_task_ids == {"deploy_10"}
    assert approve.retries == 0
    gates = [
        {"gate": "roc_auc", "value": 0.712345678, "bound": ">= 0.7", "passed": True},
        {"gate": "roc_auc by origin", "value": None, "bound": ">= 0.6", "passed": False, "note": "no slice"},
    ]
    slices = [{"gate": "roc_auc by origin", "slice": "EWR", "value": 0.61234, "rows": 400}]
    outputs = {"model_version": "7", "champion_version": "6", "gates": gates, "slices": slices, "card": "http://m/card"}
    results = {"outputs": outputs | {"gain": 0.0123456, "gain_low": 0.0, "gain_high": 0.02}, "seconds": 30.0}
    run = {"ti": type("Ti", (), {"xcom_pull": lambda *_, **__: results})()}
    body = dag.get_template_env().from_string(cast("Any", approve).body).render(run)
    assert "**Version 7** against champion **6**" in body
    assert "\n| roc_auc | 0.7123 | >= 0.7 | passed |  |\n" in body
    assert "\n| roc_auc by origin | - | >= 0.6 | FAILED | no slice |\n" in body
    assert "Gain over the champion: 0.01235 (0 to 0.02)." in body
    assert "\n| roc_auc by origin | EWR | 0.6123 | 400 |\n" in body
    assert "Cost so far: at most 2.0 CPU minutes (ingest 30.0 s on 1 CPU, validate 30.0 s on 1 CPU, " in body
    assert "[Model card](http://m/card)" in body


def test_who_may_approve_and_for_how_long_is_what_the_specification_says(write_pipeline: Any) -> None:
    deployment = {"approval": "required", "approvers": ["ann", "bob"], "approval_timeout": "2h"}
    asked = cast("Any", the_task(training_dag(write_pipeline, deployment=deployment), "approve"))
    assert [user["id"] for user in asked.assigned_users] == ["ann", "bob"]
    assert asked.response_timeout == timedelta(hours=2)
    assert asked.defaults == ["Reject"]
    deployment["on_approval_timeout"] = "approve"
    assert cast("Any", the_task(training_dag(write_pipeline, deployment=deployment), "approve")).defaults == ["Approve"]


def test_an_approval_without_evidence_or_champion_can_still_be_asked(write_pipeline: Any) -> None:
    dag = training_dag(write_pipeline, deployment={"approval": "required"})
    body = cast("Any", the_task(dag, "approve")).body
    for results in (None, {"outputs": {"model_version": "1", "champion_version": None, "gain": None}}):
        run = {"ti": type("Ti", (), {"xcom_pull": lambda *_, found=results, **__: found})()}
        assert "against champion **none**" in dag.get_template_env().from_string(body).render(run)


def test_the_projects_own_pipelines_become_dags() -> None:
    bag = read(PROJECT / "dags")
    assert bag.import_errors == {}
    names = {file.parent.name for file in (PROJECT / "dags" / "pipelines").glob("*/pipeline.yaml")}
    assert set(bag.dags) == names | {f"{name}.{what}" for name in names for what in ("data", "retire")}


def test_without_approval_nobody_is_asked(write_pipeline: Any) -> None:
    assert "approve" not in training_dag(write_pipeline).task_ids


@pytest.mark.parametrize(
    ("strategy", "line"),
    [
        ("blue_green", ["deploy_0", "deploy_100", "analyse_100", "promote"]),
        ("shadow", ["deploy_shadow", "compare", "promote"]),
    ],
)
def test_a_rollout_is_a_row_of_steps_and_each_can_be_taken_back(
    write_pipeline: Any, strategy: str, line: list[str]
) -> None:
    dag = training_dag(write_pipeline, deployment={"strategy": strategy})
    found = edges(dag)
    for before, after in pairwise(line):
        assert after in found[before]
    assert set(line) <= {str(i) for i in the_task(dag, "stopped").upstream_task_ids}


def test_runs_come_one_at_a_time_unpaused_and_are_not_caught_up(write_pipeline: Any) -> None:
    for dag in build_dags(write_pipeline(retraining={"schedule": "@weekly"}).parent).values():
        assert (dag.max_active_runs, dag.catchup, dag.is_paused_upon_creation) == (1, False, False)
        assert dag.tags == {"perennial", "growth"}
        assert all(found.owner == "growth" for found in dag.tasks)


def test_airflow_starts_no_training_by_itself_for_the_schedule_is_the_controllers(write_pipeline: Any) -> None:
    dags = build_dags(write_pipeline(retraining={"schedule": "30 4 * * 1"}).parent)
    assert [cast("Any", dags[name]).schedule for name in ("churn", "churn.data")] == [None, None]


def test_a_dag_of_ones_own_may_be_scheduled_and_does_not_start_when_added(pipeline: Pipeline) -> None:
    dag = pipeline_dag(pipeline, schedule="30 4 * * 1")
    timetable = cast("Any", dag.timetable)
    assert (timetable.expression, str(timetable.timezone)) == ("30 4 * * 1", "UTC")
    assert dag.start_date is None  # with one, Airflow makes up for the tick before the DAG was added
    assert timetable.run_immediately == timedelta(minutes=5)


def test_retirement_comes_once_a_day_at_a_minute_of_each_pipelines_own(write_pipeline: Any) -> None:
    dag = build_dags(write_pipeline().parent)["churn.retire"]
    minute, hour, *others = cast("Any", dag.timetable).expression.split()
    assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, others) == (True, True, ["*", "*", "*"])
    assert edges(dag) == {"retire": set()}


def test_retries_and_timeouts_are_the_specifications(write_pipeline: Any) -> None:
    dag = training_dag(
        write_pipeline, resources={"train": {"timeout": "20m", "retries": 4}, "rollback": {"retries": 0}}
    )
    assert (the_task(dag, "train").execution_timeout, the_task(dag, "train").retries) == (timedelta(minutes=20), 4)
    assert (the_task(dag, "ingest").execution_timeout, the_task(dag, "ingest").retries) == (timedelta(hours=1), 1)
    assert the_task(dag, "analyse_10").execution_timeout == timedelta(hours=1, minutes=5)  # one look
    assert the_task(dag, "rollback").retries == 3


def test_a_task_in_which_the_evaluation_may_run_again_has_its_time(write_pipeline: Any) -> None:
    dag = training_dag(write_pipeline, resources={"evaluate": {"timeout": "3h"}, "deploy": {"timeout": "5m"}})
    found = {name: the_task(dag, name).execution_timeout for name in ("deploy_10", "analyse_10", "promote", "train")}
    assert set(found.values()) == {timedelta(hours=3), timedelta(hours=1)}
    assert found["train"] == timedelta(hours=1)


def test_the_page_of_a_dag_is_made_from_the_specification(write_pipeline: Any) -> None:
    gates = [
        {"metric": "roc_auc", "min": 0.7},
        {"against": "champion", "min_gain": 0.002},
        {"slice": "region", "metric": "log_loss", "max": 0.6},
    ]
    canvas = {name: f"about {name}" for name in Canvas.model_fields}
    dag = training_dag(
        write_pipeline,
        evaluation={"metric": "roc_auc", "gates": gates},
        canvas=canvas,
        deployment={"approval": "required"},
        retraining={"schedule": "@weekly"},
    )
    for text in (
        "`roc_auc` at least 0.7",
        "gain in `roc_auc` over the champion at least 0.002, at 95% confidence",
        "`log_loss` at most 0.6 in each `region` of at least 200 rows",
        "10%, 50%, 100% of the traffic, each watched for 10m (canary). A person approves first.",
        "by schedule: `@weekly`, UTC",
        "**Data governance.** about data_governance",
        "growth@example.com",
    ):
        assert text in str(dag.doc_md)
    assert dag.description == "about value_proposition"


def test_reading_the_files_twice_gives_the_same_dags(dags_folder: Path, write_pipeline: Any) -> None:
    write_pipeline(root=dags_folder / "pipelines", retraining={"schedule": "@weekly"})
    one, two = ({k: DagSerialization.serialize_dag(d) for k, d in read(dags_folder).dags.items()} for _ in range(2))
    assert one == two


def test_a_broken_pipeline_is_an_import_error_and_the_others_run(dags_folder: Path, write_pipeline: Any) -> None:
    root = dags_folder / "pipelines"
    write_pipeline("churn", root)
    write_pipeline("broken", root, nmae="x")
    bag = read(dags_folder)
    assert sorted(bag.dags) == ["churn", "churn.data", "churn.retire"]
    ((file, message),) = bag.import_errors.items()
    assert file.endswith("broken_pipelines.py")
    assert "1 pipeline is broken; the others run" in message
    assert "did you mean 'name'?" in message
    assert str(root / "broken" / "pipeline.yaml") in message


def test_two_pipelines_of_one_name_are_both_reported_and_the_others_run(dags_folder: Path, write_pipeline: Any) -> None:
    root = dags_folder / "pipelines"
    write_pipeline("churn", root)
    write_pipeline("one", root, name="twin")
    write_pipeline("two", root, name="twin")
    bag = read(dags_folder)
    assert sorted(bag.dags) == ["churn", "churn.data", "churn.retire"]
    (message,) = bag.import_errors.values()
    assert "2 pipelines are broken" in message
    assert f"the name 'twin' is also used in {root / 'two'}" in message


def test_a_schedule_that_is_no_time_breaks_only_its_own_pipeline(dags_folder: Path, write_pipeline: Any) -> None:
    root = dags_folder / "pipelines"
    write_pipeline("churn", root)
    write_pipeline("never", root, retraining={"schedule": "99 99 * * *"})
    bag = read(dags_folder)
    assert sorted(bag.dags) == ["churn", "churn.data", "churn.retire"]
    (message,) = bag.import_errors.values()
    assert "never/pipeline.yaml: cannot become a DAG: " in message


def test_no_broken_pipeline_no_error_and_no_pipeline_no_dag(dags_folder: Path) -> None:
    bag = read(dags_folder)
    assert (dict(bag.dags), bag.import_errors) == ({}, {})


def test_a_worker_reads_only_the_pipeline_of_its_task(write_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_pipeline("churn").parent
    write_pipeline("other", root)
    write_pipeline("third", root, name="renamed")
    for dag_id, expected in {
        "churn.data": ["churn"],
        "churn.retire": ["churn"],
        "renamed": ["churn", "other", "renamed"],
    }.items():
        monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", dag_id)
        assert set(build_dags(root)) == {name + of for name in expected for of in ("", ".data", ".retire")}


def test_the_backend_is_a_setting_and_a_wrong_one_is_an_import_error(
    dags_folder: Path, write_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pipeline(root=dags_folder / "pipelines").parent
    assert isinstance(build_dags(root)["churn"].get_task("train"), LocalStepOperator)
    monkeypatch.setenv("PERENNIAL_BACKEND", "kubernets")
    (message,) = read(dags_folder).import_errors.values()
    assert "PERENNIAL_BACKEND is 'kubernets'; did you mean 'kubernetes'?" in message


def test_the_example_puts_a_task_between_training_and_evaluation(
    dags_folder: Path, write_pipeline: Any, tmp_path: Path
) -> None:
    example = PROJECT / "dags" / "examples" / "audited_training.py"
    assert len(example.read_text().splitlines()) < 30
    write_pipeline("flight-delays", dags_folder / "pipelines")
    (dags_folder / "mine.py").write_text(example.read_text())
    bag = read(dags_folder)
    assert bag.import_errors == {}
    found = edges(bag.dags["flight-delays-audited"])
    assert found["train"] == {"audit"}
    assert found["audit"] == {"evaluate"}


def test_examples_and_pipelines_are_not_read_as_dag_files(dags_folder: Path, write_pipeline: Any) -> None:
    folder = write_pipeline(root=dags_folder / "pipelines")
    for place in (folder, dags_folder / "examples"):
        place.mkdir(exist_ok=True)
        (place / "dag.py").write_text("from airflow.sdk import DAG\nraise RuntimeError('read')\n")
    assert read(dags_folder).import_errors == {}


def test_reading_a_dag_file_loads_neither_data_libraries_nor_the_kubernetes_client(
    dags_folder: Path, write_pipeline: Any
) -> None:
    write_pipeline(root=dags_folder / "pipelines")
    heavy = ["pandas", "numpy", "mlflow", "xgboost", "great_expectations", "kubernetes", "duckdb"]
    program = f"""
import runpy, sys
import airflow.sdk
before = set(sys.modules)
runpy.run_path({str(dags_folder / "continuous_training.py")!r})
print(sorted(set({heavy!r}) & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_file_of_pod_settings_that_is_missing_is_named(write_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial_operators import step

    monkeypatch.setenv("PERENNIAL_BACKEND", "kubernetes")
    monkeypatch.setenv("PERENNIAL_POD_FILE", "/nowhere/pods.yaml")
    with pytest.raises(PlatformError, match=r"/nowhere/pods\.yaml: the settings of step pods cannot be read"):
        step(load_pipeline(write_pipeline()), "train")
