"""A model in a process of its own: what waits is joined, what overruns or crashes fails alone, and nothing of the server leaks into it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from perennial_features.request import columns_from_rows
from perennial_serving.child import Child, ChildEnded, Launch, TooSlow
from perennial_serving.model_process import ModelFailed, ProcessModel
from perennial_serving.pyfunc import load_pyfunc
from perennial_serving.refusals import NotReady, Overloaded
from perennial_spec.errors import ModelError, RequestError

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOODY = '''
import os, signal, sys, time
import mlflow
from mlflow.pyfunc import PythonModel

class Moody(PythonModel):
    """Answers a + b; some values of a make it misbehave."""

    def load_context(self, context):
        if os.environ.get("MOODY") == "broken":
            raise RuntimeError("no start today")

    def predict(self, context, model_input, params=None):
        a = model_input["a"].to_numpy()
        for value in a:
            if value == 13:
                raise ValueError(f"cannot do with {a.tolist()}")
            if value == 30:
                time.sleep(30)
            if value == 66:
                os.kill(os.getpid(), signal.SIGKILL)
            if value == 77:
                bytearray(16 * 2**30)
            if value == 404:
                return a[:1]
            if value == 500:
                print("a model that talks", flush=True)
            if value == 1000:
                time.sleep(0.3)
            if value == 2000:
                return [float(len(os.environ.get("MOODY_TOKEN", ""))), float(len(os.environ.get("SERVER_SECRET", "")))]
            if value == 3000:
                return [float(os.getpid())] * len(a)
            if value == 4000:
                return [float(len(a))] * len(a)
        if model_input["b"].isna().any():
            raise TypeError("b is missing")
        return a + model_input["b"].to_numpy()

mlflow.models.set_model(Moody())
'''


@dataclass(frozen=True)
class Limits:
    pyfunc_workers: int = 1
    pyfunc_queue: int = 64
    pyfunc_timeout_seconds: float = 20.0
    pyfunc_memory_bytes: int = 0
    pyfunc_environment: tuple[str, ...] = ("MOODY_TOKEN", "MOODY")
    load_timeout_seconds: float = 120.0
    pyfunc_batch_rows: int = 1024
    max_inflight_rows: int = 200_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import mlflow
    import pandas as pd

    root = tmp_path_factory.mktemp("moody")
    (root / "moody.py").write_text(MOODY)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    signature = mlflow.models.infer_signature(frame, np.array([4.0, 6.0]))
    mlflow.pyfunc.save_model(
        root / "model",
        python_model=str(root / "moody.py"),
        signature=signature,
        input_example=frame,
        pip_requirements=[],
    )
    return root / "model"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(folder: Path) -> AsyncIterator[ProcessModel]:
    """One that is shared: it outlives whatever a test does to it."""
    made = load_pyfunc(folder, Limits())
    await made.start()
    yield made
    await made.close()


async def ask(model: ProcessModel, a: Any, b: Any = 0.5) -> Any:
    values = a if isinstance(a, list) else [a]
    return await model.predict(columns_from_rows([{"a": each, "b": b} for each in values], model.schema))


async def test_the_first_row_of_its_example_is_what_the_server_asks_it(model: ProcessModel) -> None:
    question = model.question
    assert question is not None
    assert {name: values.tolist() for name, values in question.columns.items()} == {"a": [1.0], "b": [3.0]}
    assert (await model.ask(question.columns)).tolist() == question.answer.tolist() == [4.0]


async def test_each_request_gets_its_own_rows_back(model: ProcessModel) -> None:
    answers = await asyncio.gather(*(ask(model, [float(n), n + 0.25]) for n in range(100, 140)))
    assert [answer.tolist() for answer in answers] == [[n + 0.5, n + 0.75] for n in range(100, 140)]
    assert model.outputs == 1


async def test_requests_that_wait_are_joined(model: ProcessModel) -> None:
    busy = asyncio.create_task(ask(model, 1000.0))
    await asyncio.sleep(0.1)
    sizes = await asyncio.gather(*(ask(model, 4000.0) for _ in range(10)))
    assert (await busy).tolist() == [1000.5]
    assert {answer.tolist()[0] for answer in sizes} == {10.0}


async def test_a_request_that_the_model_fails_on_does_not_fail_those_it_was_joined_with(model: ProcessModel) -> None:
    busy = asyncio.create_task(ask(model, 1000.0))
    await asyncio.sleep(0.1)
    answers = await asyncio.gather(ask(model, 1.0), ask(model, 13.0), ask(model, 2.0), return_exceptions=True)
    await busy
    assert isinstance(answers[1], ModelFailed)
    assert [answers[0].tolist(), answers[2].tolist()] == [[1.5], [2.5]]  # type: ignore[union-attr]


async def test_a_failure_names_the_error_and_its_place_and_nothing_that_was_sent(model: ProcessModel) -> None:
    with pytest.raises(ModelFailed) as failed:
        await ask(model, [13.0, 4711.0])
    assert failed.value.kind == "ValueError"
    assert str(failed.value).startswith("moody.py:")
    assert "4711" not in str(failed.value)


async def test_a_missing_value_that_the_signature_requires_is_the_requests_fault(model: ProcessModel) -> None:
    with pytest.raises(RequestError, match="the value is missing in 'b'"):
        await ask(model, 1.0, None)


async def test_an_answer_of_the_wrong_length_is_the_models_fault(model: ProcessModel) -> None:
    with pytest.raises(ModelError, match=r"answers 2 rows with an array of shape \[1\]"):
        await ask(model, [404.0, 1.0])


async def test_a_model_that_prints_is_no_trouble(model: ProcessModel) -> None:
    assert (await ask(model, 500.0)).tolist() == [500.5]


async def test_a_crash_fails_the_calls_in_flight_and_those_that_wait_are_answered(model: ProcessModel) -> None:
    before = model.pids
    crash = asyncio.create_task(ask(model, 66.0))
    await asyncio.sleep(0)  # it goes first
    await asyncio.sleep(0.005)
    waits = [asyncio.create_task(ask(model, float(n))) for n in range(3)]
    with pytest.raises(NotReady, match="SIGKILL"):
        await crash
    assert [(await each).tolist() for each in waits] == [[0.5], [1.5], [2.5]]
    assert model.pids != before


async def test_a_process_that_was_killed_while_idle_fails_nobody(model: ProcessModel) -> None:
    await ask(model, 1.0)
    (process,) = model.pids
    os.kill(process, signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert (await ask(model, 1.0)).tolist() == [1.5]


async def test_whoever_goes_away_leaves_the_line_in_step(model: ProcessModel) -> None:
    gone = asyncio.create_task(ask(model, 1000.0))
    waits = asyncio.create_task(ask(model, 7.0))
    await asyncio.sleep(0.1)
    gone.cancel()
    waits.cancel()
    assert (await ask(model, 8.0)).tolist() == [8.5]


async def test_an_overrun_is_killed_and_answered_504_and_the_next_is_answered(folder: Path) -> None:
    model = load_pyfunc(folder, Limits(pyfunc_timeout_seconds=20.0))
    await model.start()
    model._settings = replace(Limits(), pyfunc_timeout_seconds=0.5)
    (process,) = model.pids
    with pytest.raises(TooSlow, match=r"within 0\.5 s") as slow:
        await ask(model, 30.0)
    assert slow.value.status == 504
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert (await ask(model, 1.0)).tolist() == [1.5]
    await model.close()


async def test_a_full_queue_and_a_long_wait_are_answered_503(folder: Path) -> None:
    model = load_pyfunc(folder, Limits(pyfunc_queue=2, pyfunc_timeout_seconds=0.6))
    await model.start()
    busy = [asyncio.create_task(ask(model, [1000.0]))]
    await asyncio.sleep(0.05)
    busy += [asyncio.create_task(ask(model, [float(n)])) for n in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded, match="2 requests with 2 rows wait"):
        await ask(model, 1.0)
    assert [len(await each) for each in busy] == [1, 1, 1]
    model._settings = replace(Limits(), pyfunc_timeout_seconds=30.0)
    busy = [asyncio.create_task(ask(model, [1000.0] * 4))]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded, match="no process was free in time"):
        await ask(model, 1.0)
    await busy[0]
    await model.close()


async def test_several_processes_answer_at_once(folder: Path) -> None:
    model = load_pyfunc(folder, Limits(pyfunc_workers=2))
    await model.start()
    assert len(set(model.pids)) == 2
    start = time.perf_counter()
    answers = await asyncio.gather(ask(model, [3000.0]), ask(model, [1000.0] * 2), ask(model, [3000.0]))
    assert time.perf_counter() - start < 1.5
    assert {answers[0].tolist()[0], answers[2].tolist()[0]} <= {float(pid) for pid in model.pids}
    await model.close()
    assert not model.pids


async def test_closing_answers_what_waits_and_ends_the_process(folder: Path) -> None:
    model = load_pyfunc(folder, Limits())
    await model.start()
    (process,) = model.pids
    waits = [asyncio.create_task(ask(model, value)) for value in (1000.0, 1.0)]
    await asyncio.sleep(0.05)
    await model.close()
    assert [(await each).tolist() for each in waits] == [[1000.5], [1.5]]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(NotReady, match="being unloaded"):
        await ask(model, 1.0)


async def test_a_model_inherits_what_it_was_promised_and_no_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOODY_TOKEN", "four")
    monkeypatch.setenv("SERVER_SECRET", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    model = load_pyfunc(folder, Limits())
    await model.start()
    assert (await ask(model, [2000.0, 0.0])).tolist() == [4.0, 0.0]
    inherited = Path(f"/proc/{model.pids[0]}/environ").read_text()
    assert "MLFLOW_TRACKING_PASSWORD" not in inherited
    await model.close()


async def test_memory_has_a_limit_and_the_process_lives_on(folder: Path) -> None:
    model = load_pyfunc(folder, Limits(pyfunc_memory_bytes=8 * 2**30))
    await model.start()
    with pytest.raises(ModelFailed, match="MemoryError"):
        await ask(model, 77.0)
    assert (await ask(model, 1.0)).tolist() == [1.5]
    await model.close()


async def test_a_model_that_does_not_load_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOODY", "broken")
    with pytest.raises(ModelError, match="does not load: RuntimeError: no start today"):
        await load_pyfunc(folder, Limits()).start()


async def test_a_server_without_mlflow_says_how_to_install_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError('none', name='mlflow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelError, match="mlflow is not installed") as refused:
        await load_pyfunc(folder, Limits()).start()
    assert "perennial-serving[pyfunc]" in refused.value.next


async def test_signals_to_all_processes_leave_the_end_to_the_server(model: ProcessModel) -> None:
    await ask(model, 1.0)
    before = model.pids
    for asked in (signal.SIGINT, signal.SIGTERM):
        os.kill(before[0], asked)
    assert (await ask(model, 1.0)).tolist() == [1.5]
    assert model.pids == before


async def test_a_model_that_takes_too_long_to_load_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"loading takes longer than 0\.1 s"):
        await load_pyfunc(folder, Limits(load_timeout_seconds=0.1)).start()


async def test_a_process_that_cannot_be_started_again_keeps_nobody_waiting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_pyfunc(folder, Limits())
    await model.start()
    monkeypatch.setenv("MOODY", "broken")
    os.kill(model.pids[0], signal.SIGKILL)
    await asyncio.sleep(0.1)
    with pytest.raises(NotReady, match="does not start at present"):
        await ask(model, 1.0)
    start = time.perf_counter()
    with pytest.raises(NotReady, match="does not start at present"):
        await ask(model, 1.0)
    assert time.perf_counter() - start < 0.1
    monkeypatch.delenv("MOODY")
    async with asyncio.timeout(60):
        while True:
            try:
                assert (await ask(model, 1.0)).tolist() == [1.5]
                break
            except NotReady:
                await asyncio.sleep(0.2)
    await model.close()


async def test_the_process_ends_with_the_server_also_in_the_middle_of_a_prediction(folder: Path) -> None:
    child = await Child.start(Launch("perennial_serving.model_worker"))
    child._writer.transport.abort()  # what a server that is killed leaves behind
    assert await asyncio.to_thread(child._process.wait, 30) == 0


async def test_a_process_that_does_not_speak_is_told_apart_from_a_slow_one() -> None:
    child = await Child.start(Launch("json.tool"))
    with pytest.raises(ChildEnded, match="exit status"):
        await child.call({}, {}, 30)
