from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from perennial_operators.contract import StepCall
from perennial_operators.local import LocalStepOperator, child_environment
from perennial_spec.load import Pipeline, load_pipeline

Install = Callable[[str], None]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What the task log of the operator gets: (level, line)."""
    lines: list[tuple[int, str]] = []

    class Log:
        def log(self, level: int, text: str, *arguments: object) -> None:
            lines.append((level, text % arguments if arguments else text))

        def info(self, text: str, *arguments: object) -> None:
            self.log(logging.INFO, text, *arguments)

    monkeypatch.setattr(LocalStepOperator, "log", Log())
    return lines


def operator(pipeline: Pipeline) -> LocalStepOperator:
    with DAG("one", schedule=None):
        return LocalStepOperator(task_id="train", call=StepCall(pipeline, "train", {"share": 0.1}))


def run(task: LocalStepOperator, pushed: dict[str, Any] | None = None) -> dict[str, Any]:
    pushed = {} if pushed is None else pushed
    dag_run = SimpleNamespace(
        run_id="manual__1", run_type=DagRunType.MANUAL, conf=None, logical_date=None, triggering_user_name="ada"
    )
    ti = SimpleNamespace(xcom_push=pushed.__setitem__, xcom_pull=lambda **_: None)
    store = SimpleNamespace(get=lambda _: None)
    # `execute` is wrapped by Airflow against being called inside another task; this is what the task runner calls, unwrapped.
    execute = cast("Any", type(task).execute).__wrapped__
    return cast(
        "dict[str, Any]", execute(task, cast("Context", {"dag_run": dag_run, "ti": ti, "task_state_store": store}))
    )


def test_a_step_gets_its_request_and_gives_its_outputs(
    pipeline: Pipeline, steps_that: Install, said: list[tuple[int, str]]
) -> None:
    steps_that(
        'done(outputs=json.loads(request.model_dump_json(include={"step", "run_key", "params", "spec_digest"})))'
    )
    pushed: dict[str, Any] = {}
    outputs = run(operator(pipeline), pushed)
    expected = {"step": "train", "run_key": "manual__1", "params": {"share": 0.1}, "spec_digest": pipeline.digest}
    assert outputs == expected
    assert pushed["result"]["outputs"] == expected


def test_lines_of_the_step_are_lines_of_the_task_at_their_level(
    pipeline: Pipeline, steps_that: Install, said: list[tuple[int, str]]
) -> None:
    steps_that("""
        print("12:00:03 read 100% of 5 rows (%s)", file=sys.stderr)
        print("12:00:04 WARNING one column is empty", file=sys.stderr)
        print("12:00:05 ERROR no label", file=sys.stderr)
        print("plain")
        done(metrics={"roc_auc": 0.71234567}, seconds=0.5)
    """)
    run(operator(pipeline))
    assert said[:4] == [
        (logging.INFO, "read 100% of 5 rows (%s)"),
        (logging.WARNING, "one column is empty"),
        (logging.ERROR, "no label"),
        (logging.INFO, "plain"),
    ]
    assert said[4][1].startswith("pass; 0.50 s of work, ")
    assert said[5] == (logging.INFO, "metrics: roc_auc=0.712346")


def test_a_failed_gate_fails_the_task_for_good(pipeline: Pipeline, steps_that: Install) -> None:
    steps_that('done("fail", failure="roc_auc 0.61 < 0.70")')
    with pytest.raises(AirflowFailException, match=r"train: fail: roc_auc 0\.61 < 0\.70"):
        run(operator(pipeline))


def test_an_error_leaves_room_for_another_try(pipeline: Pipeline, steps_that: Install) -> None:
    steps_that('done("error", failure="MLflow does not answer")')
    with pytest.raises(AirflowException, match="train: error: MLflow does not answer") as caught:
        run(operator(pipeline))
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(3)", r"step train ended with exit code 3 and left no result[\s\S]*PERENNIAL_STEP_RESULT_FILE"),
        ("pass", "step train ended with exit code 0 and left no result"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            r"step train was killed \(SIGKILL\), most often because memory ran out",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"step train was ended by signal 11 \(Segmentation fault\)"),
        ('open(os.environ["PERENNIAL_STEP_RESULT_FILE"], "w").write("{}")', "step result: step: Field required"),
        ('done(run_key="another")', "left the result of step train, run another"),
    ],
)
def test_without_a_result_the_task_says_which_way_the_process_ended(
    body: str, message: str, pipeline: Pipeline, steps_that: Install
) -> None:
    steps_that(body)
    with pytest.raises(AirflowException, match=message) as caught:
        run(operator(pipeline))
    assert not isinstance(caught.value, AirflowFailException)  # another try may do


def test_killing_the_task_ends_the_step_and_what_it_started(
    pipeline: Pipeline, steps_that: Install, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    steps_that(f"""
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{other.pid}}\\n")
        time.sleep(600)
    """)
    task = operator(pipeline)

    def kill() -> None:
        until = time.monotonic() + 60
        while not (pids.exists() and pids.read_text().endswith("\n")) and time.monotonic() < until:
            time.sleep(0.02)
        task.on_kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(AirflowException, match=r"ended by signal 15 \(Terminated\)"):
        run(task)
    killer.join()
    for pid in map(int, pids.read_text().split()):
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or " Z " in stat.read_text()


def test_killing_a_task_that_runs_nothing_is_harmless(pipeline: Pipeline) -> None:
    operator(pipeline).on_kill()


def test_files_of_the_step_are_gone_when_it_is_done(pipeline: Pipeline, steps_that: Install) -> None:
    steps_that("""
        import tempfile
        scratch = tempfile.mkdtemp()
        open(os.path.join(scratch, "large"), "w").write("x")
        done(outputs={"cwd": os.getcwd(), "scratch": scratch})
    """)
    outputs = run(operator(pipeline))
    assert outputs["scratch"].startswith(outputs["cwd"])
    assert not os.path.exists(outputs["cwd"])  # noqa: PTH110


def test_a_step_is_told_the_places_and_not_the_secrets_of_others(write_pipeline: Any) -> None:
    pipeline = load_pipeline(write_pipeline(resources={"train": {"cpu": 1.5}}))
    told = child_environment(
        {
            "PATH": "/bin",
            "MLFLOW_TRACKING_URI": "http://mlflow",
            "PERENNIAL_STORE": "/store",
            "PERENNIAL_PIPELINES_DIR": "/elsewhere",
            "WEATHER_URL": "postgresql://weather",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "secret",
            "AIRFLOW__API_AUTH__JWT_SECRET": "secret",
            "PERENNIAL_DATABASE_URL": "secret",
            "PERENNIAL_TOKEN_FILE": "/secret",
            "PERENNIAL_AIRFLOW_CREDENTIALS_FILE": "/secret",
        },
        StepCall(pipeline, "train"),
        "train",
    )
    assert "secret" not in json.dumps(told)
    assert {"PATH", "MLFLOW_TRACKING_URI", "PERENNIAL_STORE", "WEATHER_URL"} <= set(told)
    assert told["PERENNIAL_PIPELINES_DIR"] == str(pipeline.folder.parent)  # the files that the DAG was built from
    assert told["OMP_NUM_THREADS"] == "2"
    assert told["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_real_runner_keeps_the_contract(pipeline: Pipeline, said: list[tuple[int, str]]) -> None:
    """`python -m perennial_steps` itself: it refuses a pipeline that has changed since the DAG was built."""
    changed = Pipeline(pipeline.spec, pipeline.folder, digest="0" * 64)
    with pytest.raises(AirflowFailException, match=r"train: fail: .*'churn' has changed since the DAG was built"):
        run(operator(changed))
    assert any("run manual__1" in line for _, line in said)
