from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import DAG, BaseOperator, Context, chain, task
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from pydantic import ValidationError

from perennial_operators import rollout_group, step
from perennial_operators.contract import StepCall, StepTask, build_request, conclude, steps_upstream
from perennial_spec.load import Pipeline, load_pipeline
from perennial_spec.step import StepFailure, StepResult, Verdict


class Exchange:
    """Airflow's XCom of one run and its store for one task, in memory."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {}
        self.kept: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.values["me", key] = value

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: int = -1) -> Any:
        return self.values.get((task_ids, key))


def context(exchange: Exchange, run_id: str = "manual__1", conf: dict[str, Any] | None = None) -> Context:
    run = SimpleNamespace(
        run_id=run_id, run_type=DagRunType.MANUAL, conf=conf, logical_date=None, triggering_user_name="ada"
    )
    store = SimpleNamespace(get=exchange.kept.get, set=exchange.kept.__setitem__)
    return cast("Context", {"dag_run": run, "ti": exchange, "task_state_store": store})


def result(step: str = "train", verdict: Verdict = Verdict.PASS, **more: Any) -> StepResult:
    return StepResult.model_validate(
        {"step": step, "run_key": "manual__1", "verdict": verdict, "summary": "it is so"} | more
    )


def call(task: object) -> StepCall:
    assert isinstance(task, StepTask)
    return task.call


def tasks_of(dag: DAG) -> dict[str, BaseOperator]:
    return {str(found.task_id): cast("BaseOperator", found) for found in dag.tasks}


@pytest.fixture
def tasks(pipeline: Pipeline) -> dict[str, BaseOperator]:
    with DAG("d", schedule=None) as dag:
        chain(step(pipeline, "ingest"), step(pipeline, "train"), step(pipeline, "evaluate"), rollout_group(pipeline))
    return tasks_of(dag)


def passed(exchange: Exchange, task: BaseOperator, pipeline: Pipeline, **outputs: Any) -> None:
    name = call(task).step
    exchange.values[task.task_id, "result"] = {"step": name, "outputs": outputs, "spec_digest": pipeline.digest}


def test_a_task_sees_every_step_before_it_and_none_after(tasks: dict[str, BaseOperator]) -> None:
    assert list(steps_upstream(tasks["evaluate"])) == [("ingest", "ingest"), ("train", "train")]
    assert [found for _, found in steps_upstream(tasks["promote"])][-4:] == [
        "deploy_10",
        "analyse_10",
        "deploy_50",
        "analyse_50",
    ]


def test_the_request_describes_the_run_and_carries_the_outputs_before(
    tasks: dict[str, BaseOperator], pipeline: Pipeline
) -> None:
    exchange = Exchange()
    passed(exchange, tasks["ingest"], pipeline, data_version=3)
    passed(exchange, tasks["train"], pipeline, model_version="7")
    request = build_request(tasks["evaluate"], call(tasks["evaluate"]), context(exchange, conf={"reason": "because"}))
    assert request.pipeline == "churn"
    assert request.run_key == "manual__1"
    assert request.spec_digest == pipeline.digest
    assert request.reason.summary == "because"
    assert request.inputs == {"ingest": {"data_version": 3}, "train": {"model_version": "7"}}


def test_of_several_tasks_of_one_step_the_nearest_counts(tasks: dict[str, BaseOperator], pipeline: Pipeline) -> None:
    exchange = Exchange()
    passed(exchange, tasks["deploy_10"], pipeline, share=0.1)
    passed(exchange, tasks["deploy_50"], pipeline, share=0.5)
    request = build_request(tasks["promote"], call(tasks["promote"]), context(exchange))
    assert request.inputs == {"deploy": {"share": 0.5}}


def test_a_rollback_gets_the_last_deployment_that_there_was(tasks: dict[str, BaseOperator], pipeline: Pipeline) -> None:
    exchange = Exchange()
    passed(exchange, tasks["deploy_10"], pipeline, share=0.1)
    request = build_request(tasks["rollback"], call(tasks["rollback"]), context(exchange))
    assert request.inputs == {"deploy": {"share": 0.1}}


def test_the_share_of_a_deployment_is_a_parameter(tasks: dict[str, BaseOperator]) -> None:
    request = build_request(tasks["analyse_50"], call(tasks["analyse_50"]), context(Exchange()))
    assert request.params == {"share": 0.5}


def test_a_pipeline_that_changed_during_the_run_stops_it(tasks: dict[str, BaseOperator]) -> None:
    exchange = Exchange()
    exchange.values["ingest", "result"] = {"outputs": {}, "spec_digest": "another"}
    with pytest.raises(AirflowFailException, match="of pipeline churn have changed since this run's step ingest"):
        build_request(tasks["train"], call(tasks["train"]), context(exchange))


def test_a_task_of_ones_own_can_stand_in_for_a_step(pipeline: Pipeline) -> None:
    @task
    def calibrate() -> dict[str, str]:
        return {"model_version": "8"}

    with DAG("d", schedule=None) as dag:
        chain(step(pipeline, "train"), calibrate(), step(pipeline, "evaluate", inputs={"train": "calibrate"}))
    exchange = Exchange()
    passed(exchange, tasks_of(dag)["train"], pipeline, model_version="7")
    exchange.values["calibrate", "return_value"] = {"model_version": "8"}
    evaluate = tasks_of(dag)["evaluate"]
    assert build_request(evaluate, call(evaluate), context(exchange)).inputs == {"train": {"model_version": "8"}}
    exchange.values["calibrate", "return_value"] = None
    with pytest.raises(AirflowFailException, match="task 'calibrate' stands in for step train and returned NoneType"):
        build_request(evaluate, call(evaluate), context(exchange))


def test_a_run_id_that_a_step_cannot_take_is_refused(tasks: dict[str, BaseOperator]) -> None:
    with pytest.raises(AirflowFailException, match=r"run_key of this run: .*start it with another run id"):
        build_request(tasks["train"], call(tasks["train"]), context(Exchange(), run_id="a/b c"))


def test_a_reason_of_the_wrong_shape_fails_without_retry(tasks: dict[str, BaseOperator]) -> None:
    with pytest.raises(AirflowFailException, match=r"dag_run\.conf\.reason"):
        build_request(tasks["train"], call(tasks["train"]), context(Exchange(), conf={"reason": {"kind": "x"}}))


def test_a_pass_returns_the_outputs_and_keeps_the_result(tasks: dict[str, BaseOperator], pipeline: Pipeline) -> None:
    exchange = Exchange()
    outputs = conclude(
        result(outputs={"model_version": "7"}, metrics={"auc": 0.8}), call(tasks["train"]), context(exchange)
    )
    assert outputs == {"model_version": "7"}
    kept = exchange.values["me", "result"]
    assert (kept["verdict"], kept["metrics"], kept["spec_digest"]) == ("pass", {"auc": 0.8}, pipeline.digest)


def test_a_fail_is_not_tried_again_and_says_why(tasks: dict[str, BaseOperator]) -> None:
    exchange = Exchange()
    why = StepFailure(type="Gate", message="roc_auc 0.61 < 0.70")
    with pytest.raises(AirflowFailException, match=r"^train: fail: roc_auc 0\.61 < 0\.70$"):
        conclude(result(verdict=Verdict.FAIL, failure=why), call(tasks["train"]), context(exchange))
    assert exchange.values["me", "result"]["verdict"] == "fail"


def test_an_error_may_be_tried_again(tasks: dict[str, BaseOperator]) -> None:
    with pytest.raises(AirflowException, match=r"^train: error: it is so$") as caught:
        conclude(result(verdict=Verdict.ERROR), call(tasks["train"]), context(Exchange()))
    assert not isinstance(caught.value, AirflowFailException)


def test_an_inconclusive_analysis_stops_the_rollout(tasks: dict[str, BaseOperator]) -> None:
    with pytest.raises(AirflowFailException, match="analyse: inconclusive"):
        conclude(result("analyse", Verdict.INCONCLUSIVE), call(tasks["analyse_10"]), context(Exchange()))


def test_an_inconclusive_analysis_goes_on_where_the_specification_says_so(write_pipeline: Any) -> None:
    lenient = load_pipeline(write_pipeline(deployment={"on_inconclusive": "continue"}))
    analysis = StepCall(lenient, "analyse", {"share": 0.1})
    found = conclude(result("analyse", Verdict.INCONCLUSIVE, outputs={"share": 0.1}), analysis, context(Exchange()))
    assert found == {"share": 0.1}
    with pytest.raises(AirflowFailException, match="train: inconclusive"):
        conclude(result("train", Verdict.INCONCLUSIVE), StepCall(lenient, "train"), context(Exchange()))


def test_a_step_that_must_wait_leaves_the_task_with_what_it_wants_to_remember(
    tasks: dict[str, BaseOperator], pipeline: Pipeline
) -> None:
    exchange, analyse = Exchange(), tasks["analyse_10"]
    pending = result("analyse", Verdict.PENDING, again_after=60.0, state={"since": 5.0}, outputs={"requests": 12})
    with pytest.raises(TaskDeferred) as left:
        conclude(pending, call(analyse), context(exchange))
    assert hasattr(analyse, left.value.method_name)
    assert left.value.timeout is None
    moment = left.value.trigger.moment
    assert 55 < (moment - datetime.now(UTC)).total_seconds() <= 60
    assert exchange.values["me", "result"]["outputs"] == {"requests": 12}
    assert build_request(analyse, call(analyse), context(exchange)).state == {"since": 5.0}


def test_pending_and_the_time_of_the_next_look_belong_together() -> None:
    with pytest.raises(ValidationError, match="expected again_after with the verdict pending"):
        result("analyse", Verdict.PENDING)
    with pytest.raises(ValidationError, match="expected again_after with the verdict pending"):
        result("analyse", Verdict.PASS, again_after=60.0)


def test_a_step_that_is_needed_first_is_the_tasks_next_look(tasks: dict[str, BaseOperator]) -> None:
    exchange, analyse = Exchange(), tasks["analyse_10"]

    def concluded(step: str, verdict: Verdict, **more: Any) -> None:
        with pytest.raises(TaskDeferred):
            conclude(result(step, verdict, **more), call(analyse), context(exchange))

    def next_request() -> tuple[str, dict[str, Any]]:
        request = build_request(analyse, call(analyse), context(exchange))
        return request.step, request.state

    concluded("analyse", Verdict.PENDING, again_after=0.0, state={"lost": 3}, first="deploy")
    assert next_request() == ("deploy", {})
    concluded("deploy", Verdict.PENDING, again_after=0.0, first="evaluate")
    assert next_request() == ("evaluate", {})
    concluded("evaluate", Verdict.PASS, outputs={"champion_version": "3"})
    assert next_request() == ("deploy", {}), "its share is not moved yet"
    concluded("deploy", Verdict.PASS)
    assert next_request() == ("analyse", {"lost": 3})
    assert exchange.values["me", "result"]["step"] == "analyse"
    assert exchange.values["me", "result_evaluate"]["outputs"] == {"champion_version": "3"}


def test_when_the_step_that_is_needed_first_says_no_the_task_has_failed(tasks: dict[str, BaseOperator]) -> None:
    exchange, deploy = Exchange(), tasks["deploy_10"]
    exchange.kept["perennial.look"] = {"state": {}, "first": ["evaluate"]}
    with pytest.raises(AirflowFailException, match="evaluate: fail: it is so"):
        conclude(result("evaluate", Verdict.FAIL), call(deploy), context(exchange))
    with pytest.raises(AirflowException, match="evaluate: error") as raised:
        conclude(result("evaluate", Verdict.ERROR), call(deploy), context(exchange))
    assert not isinstance(raised.value, AirflowFailException)
    assert build_request(deploy, call(deploy), context(exchange)).step == "evaluate", "a retry goes on where it was"
