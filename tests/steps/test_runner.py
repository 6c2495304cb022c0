"""The runner turns one request into one result, whatever the step does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from perennial_spec.errors import (
    BatchError,
    FeatureError,
    MonitoringError,
    PerennialError,
    PlatformError,
    RegistryError,
    SourceError,
    SpecError,
)
from perennial_spec.step import StepName, Verdict, parse_result
from perennial_steps.context import Outcome, StepContext
from perennial_steps.runner import run_step, run_to_the_end

Step = Callable[[Callable[[StepContext], Any]], None]

SLOW_STEP = """
import sys, types
module = types.ModuleType("perennial_steps.train")
def run(context):
    import time
    print("started", file=sys.stderr, flush=True)
    {work}
module.run = run
sys.modules["perennial_steps.train"] = module
"""


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Step:
    """Puts a function of the test's in the place of the step `train`."""

    def install(run: Callable[[StepContext], Any]) -> None:
        module = ModuleType("perennial_steps.train")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "perennial_steps.train", module)

    return install


def raising(error: BaseException) -> Callable[[StepContext], Any]:
    def run(_context: StepContext) -> Any:
        raise error

    return run


def test_an_outcome_becomes_the_result_of_the_request(room, train: Step) -> None:
    pipeline = room.pipeline()

    def run(context: StepContext) -> Outcome:
        assert context.pipeline.digest == pipeline.digest
        return Outcome("trained\non 3 rows", outputs={"model_version": "4"}, metrics={"roc_auc": 0.7})

    train(run)
    result = run_step(room.request("train", spec_digest=pipeline.digest), room.platform)
    assert result.verdict is Verdict.PASS
    assert (result.step, result.run_key, result.outputs, result.metrics) == (
        "train",
        "run-1",
        {"model_version": "4"},
        {"roc_auc": 0.7},
    )
    assert result.summary == "trained on 3 rows"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (BatchError("the batch is empty", where="2024-01", next="wait"), Verdict.FAIL),
        (FeatureError("features() raised"), Verdict.FAIL),
        (SpecError("no such column"), Verdict.FAIL),
        (SourceError("does not answer"), Verdict.ERROR),
        (RegistryError("is away"), Verdict.ERROR),
        (MonitoringError("is away"), Verdict.ERROR),
        (PlatformError("is away"), Verdict.ERROR),
    ],
)
def test_what_trying_again_cannot_change_fails_and_what_it_can_is_an_error(
    room, train: Step, error: PerennialError, verdict: Verdict
) -> None:
    room.pipeline()
    train(raising(error))
    result = run_step(room.request("train"), room.platform)
    assert result.verdict is verdict
    assert result.failure is not None
    assert (result.failure.type, result.failure.message) == (type(error).__name__, str(error))


def test_an_unexpected_exception_is_an_error_that_names_its_type_and_logs_its_traceback(
    room, train: Step, caplog: pytest.LogCaptureFixture
) -> None:
    room.pipeline()
    train(raising(ZeroDivisionError("division by zero")))
    result = run_step(room.request("train"), room.platform)
    assert result.verdict is Verdict.ERROR
    assert result.failure is not None
    assert result.failure.message == "ZeroDivisionError: division by zero"
    assert "Traceback" in caplog.text


def looking_again(after: float, looks: int) -> Callable[[StepContext], Outcome]:
    def run(context: StepContext) -> Outcome:
        seen = context.request.state.get("seen", 0) + 1
        if seen == looks:
            return Outcome("seen enough", {"seen": seen})
        return Outcome("not yet", verdict=Verdict.PENDING, again_after=after, state={"seen": seen})

    return run


def test_looks_that_are_seconds_apart_are_one_process(room, train: Step) -> None:
    room.pipeline()
    train(looking_again(0.01, looks=3))
    result = run_step(room.request("train"), room.platform)
    assert (result.verdict, result.outputs, result.again_after) == (Verdict.PASS, {"seen": 3}, None)


def test_a_look_that_is_far_away_is_the_callers(room, train: Step) -> None:
    room.pipeline()
    train(looking_again(300, looks=3))
    request = room.request("train")
    result = parse_result(run_step(request, room.platform).to_message())
    assert (result.verdict, result.again_after, result.state) == (Verdict.PENDING, 300, {"seen": 1})
    assert result.failure is None
    assert run_step(request.model_copy(update={"state": result.state}), room.platform).state == {"seen": 2}


def test_by_hand_a_step_stays_for_all_of_its_looks(room, train: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("perennial_steps.runner.time.sleep", waited.append)
    room.pipeline()
    train(looking_again(300, looks=3))
    assert run_to_the_end(room.request("train"), room.platform).outputs == {"seen": 3}
    assert waited == [300, 300]


@pytest.mark.parametrize("judged", [Verdict.PASS, Verdict.FAIL])
def test_by_hand_the_step_that_is_needed_first_runs_first(
    room, train: Step, monkeypatch: pytest.MonkeyPatch, judged: Verdict
) -> None:
    story: list[str] = []

    def needing(context: StepContext) -> Outcome:
        story.append(context.request.step)
        if len(story) > 1:
            return Outcome("trained")
        return Outcome("not yet", verdict=Verdict.PENDING, again_after=0.0, first="evaluate", state={"mine": 1})

    def needed(context: StepContext) -> Outcome:
        assert context.request.state == {}
        story.append(context.request.step)
        return Outcome("judged", verdict=judged)

    room.pipeline()
    train(needing)
    module = ModuleType("perennial_steps.evaluate")
    module.run = needed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "perennial_steps.evaluate", module)
    assert run_to_the_end(room.request("train"), room.platform).verdict is judged
    assert story == (["train", "evaluate", "train"] if judged is Verdict.PASS else ["train", "evaluate"])


def test_a_failing_outcome_keeps_its_outputs_and_says_why(room, train: Step) -> None:
    room.pipeline()
    train(lambda _: Outcome("gate failed", {"gain": -0.1}, verdict=Verdict.FAIL, failure="roc_auc 0.4 < 0.5"))
    result = run_step(room.request("train"), room.platform)
    assert (result.verdict, result.outputs) == (Verdict.FAIL, {"gain": -0.1})
    assert result.failure is not None
    assert result.failure.message == "roc_auc 0.4 < 0.5"


@pytest.mark.parametrize("text", ["x" * 10_000, "ü€" * 4000, "\n\x00" * 4000])
def test_long_texts_are_cut_to_the_bounds_of_the_contract(room, train: Step, text: str) -> None:
    room.pipeline()
    train(raising(BatchError(text)))
    result = parse_result(run_step(room.request("train"), room.platform).to_message())
    assert result.failure is not None
    assert result.failure.message.endswith("…")
    assert text.startswith(result.failure.message[:-1])


@pytest.mark.parametrize(
    ("outputs", "why"), [({"rows": "x" * 5000}, "4096"), ({"rows": object()}, "not JSON")], ids=["too long", "not JSON"]
)
def test_outputs_that_break_the_contract_fail_instead_of_being_lost(
    room, train: Step, outputs: dict[str, Any], why: str
) -> None:
    room.pipeline()
    train(lambda _: Outcome("done", outputs))
    result = parse_result(run_step(room.request("train"), room.platform).to_message())
    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert result.failure.type == "ContractError"
    assert why in result.failure.message


def test_a_metric_that_is_not_a_number_is_left_out(room, train: Step) -> None:
    room.pipeline()
    train(lambda _: Outcome("done", metrics={"roc_auc": float("nan"), "rows": 3}))
    result = parse_result(run_step(room.request("train"), room.platform).to_message())
    assert result.metrics == {"rows": 3.0}


def test_secrets_in_a_message_are_masked(room, train: Step) -> None:
    room.pipeline()
    train(raising(OSError("cannot connect to postgresql://me:hunter2@db/x password=hunter2")))
    result = run_step(room.request("train"), room.platform)
    assert "hunter2" not in result.to_message()
    assert "postgresql://me:***@db/x" in result.to_message()


def test_files_that_changed_since_the_dag_was_built_are_refused(room, train: Step) -> None:
    digest = room.pipeline().digest
    (room.root / "pipelines/demo/features.py").write_text("def features(columns):\n    return {}\n")
    train(lambda _: Outcome("done"))
    result = run_step(room.request("train", spec_digest=digest), room.platform)
    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert "has changed since the DAG was built" in result.failure.message
    assert "perennial run demo" in result.failure.message


def test_an_unknown_pipeline_names_the_nearest(room) -> None:
    room.pipeline("flights")
    result = run_step(room.request("train", "fligths"), room.platform)
    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert "did you mean 'flights'?" in result.failure.message


def test_a_process_without_request_exits_with_the_code_of_error(room) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perennial_steps"], check=False, env={}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == Verdict.ERROR.exit_code
    assert "no step request" in done.stderr


@pytest.mark.parametrize(
    ("step", "code"),
    [("return Outcome('ok')", 0), ("return Outcome('no', verdict='fail')", 10), ("raise SystemError", 1)],
)
def test_the_process_exits_with_the_code_of_its_verdict(room, step: str, code: int) -> None:
    room.pipeline()
    (room.root / "sitecustomize.py").write_text(
        SLOW_STEP.format(
            work=f"from perennial_steps.context import Outcome; {step.replace(chr(39) + 'fail' + chr(39), 'V.FAIL')}"
        ).replace("import sys, types", "import sys, types\nfrom perennial_spec.step import Verdict as V")
    )
    returncode, result, log = room.process(room.request("train"), PYTHONPATH=str(room.root))
    assert returncode == code == result.verdict.exit_code
    assert f"demo train: {result.verdict}" in log


@pytest.mark.parametrize("work", ["time.sleep(60)", "exec('while True: pass')"], ids=["asleep", "busy"])
def test_sigterm_ends_the_step_with_a_result(room, work: str) -> None:
    room.pipeline()
    (room.root / "sitecustomize.py").write_text(SLOW_STEP.format(work=work))
    process = room.start(room.request("train"), PYTHONPATH=str(room.root))
    assert process.stderr is not None
    while "started" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    result = parse_result((room.root / "result.json").read_text())
    assert process.returncode == Verdict.ERROR.exit_code
    assert result.verdict is Verdict.ERROR
    assert "terminated" in result.summary


NEVER_BACK = """import ctypes
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    print("locked", file=sys.stderr, flush=True)
    lock(mutex)"""


def test_sigterm_ends_a_step_that_never_comes_back_from_native_code(room) -> None:
    room.pipeline()
    (room.root / "sitecustomize.py").write_text(SLOW_STEP.format(work=NEVER_BACK))
    process = room.start(room.request("train"), PYTHONPATH=str(room.root))
    assert process.stderr is not None
    while "locked" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)  # until it is inside the lock, for ever
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == Verdict.ERROR.exit_code
    assert "ending hard" in log
    assert "terminated" in parse_result((room.root / "result.json").read_text()).summary


def test_only_the_wanted_step_is_imported(room) -> None:
    room.pipeline()
    wanted: StepName = "train"
    (room.root / "sitecustomize.py").write_text(
        SLOW_STEP.format(
            work="from perennial_steps.context import Outcome; "
            "heavy = {'mlflow', 'pandas', 'numpy', 'duckdb', 'xgboost', 'great_expectations', 'deltalake', 'httpx'}; "
            "return Outcome('ok', {'loaded': sorted(heavy & set(sys.modules))})"
        )
    )
    _, result, _ = room.process(room.request(wanted), PYTHONPATH=str(room.root))
    assert result.outputs == {"loaded": []}
