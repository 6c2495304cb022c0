"""Runs one step: request in, result out, whatever happens in between.

A result is `fail` when trying again cannot change it (the spec, the code or the batch is wrong), and `error` when it can (something did
not answer, the disk is full, the process was ended). It is `pending` when the step wants to look again later.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from perennial_spec.errors import (
    BatchError,
    ContractError,
    FeatureError,
    ModelError,
    PerennialError,
    PipelineNotFound,
    RequestError,
    SpecError,
)
from perennial_spec.load import SPEC_FILE, Pipeline, discover, load_pipeline
from perennial_spec.platform import Platform
from perennial_spec.step import StepFailure, StepRequest, StepResult, Verdict
from perennial_steps.context import Outcome, StepContext
from perennial_steps.progress import without_secrets

log = logging.getLogger(__name__)

_FINAL = (SpecError, PipelineNotFound, FeatureError, BatchError, ModelError, RequestError, ContractError)
SHORT_WAIT = 10.0
"""Seconds. A shorter wait for the next look is spent in this process: whoever runs the step would need about as long to start another."""
_SUMMARY_CHARACTERS = 300
_FAILURE_BYTES = (1500, 700, 300)
"""Tried in turn, as JSON, until the whole result fits its contract."""


class Terminated(BaseException):
    """The process was asked to end; not an Exception, so that no step swallows it."""


def run_step(request: StepRequest, platform: Platform) -> StepResult:
    """Run one step in this process. Never raises for what the step, the spec or the platform did wrong."""
    start = time.perf_counter()
    log.info("%s %s: %s (run %s)", request.pipeline, request.step, request.reason.summary, request.run_key)
    try:
        outcome = _call(request, platform)
        result = _result(request, outcome)
    except PerennialError as error:
        result = _failed(request, Verdict.FAIL if isinstance(error, _FINAL) else Verdict.ERROR, error)
    except Exception as error:
        log.exception("%s %s: unexpected %s", request.pipeline, request.step, type(error).__name__)
        result = _failed(request, Verdict.ERROR, error)
    result = _fitting(result.model_copy(update={"seconds": round(time.perf_counter() - start, 3)}))
    _report(request, result)
    return result


def run_to_the_end(request: StepRequest, platform: Platform) -> StepResult:
    """Run one step in this process, and stay for all of its looks, however far apart they are."""
    while True:
        result = run_step(request, platform)
        if result.again_after is None:
            return result
        if result.first:
            before = run_to_the_end(request.model_copy(update={"step": result.first, "state": {}}), platform)
            if before.verdict is not Verdict.PASS:
                return before
        log.info("the next look is in %.0f s", result.again_after)
        time.sleep(result.again_after)
        request = request.model_copy(update={"state": result.state})


def terminated(request: StepRequest, seconds: float = 0.0) -> StepResult:
    """The result of a step whose process was asked to end."""
    result = _failed(
        request, Verdict.ERROR, PerennialError("terminated: the process was asked to end before it was done")
    )
    return result.model_copy(update={"seconds": round(seconds, 3)})


def load_for(request: StepRequest, platform: Platform) -> Pipeline:
    """The pipeline of a request, as it was when the DAG was built.

    Raises:
        PipelineNotFound, SpecError: it is not there, is broken, or has changed since.
        PlatformError: the process was not told where pipelines are.
    """
    root = platform.pipelines_path()
    folder = root / request.pipeline
    if request.spec_digest and (folder / SPEC_FILE).is_file():
        # The digest names exactly one pipeline: no need to read all the others to find duplicates of its name.
        pipeline = load_pipeline(folder)
        if pipeline.name == request.pipeline and pipeline.digest == request.spec_digest:
            return pipeline
    pipeline = discover(root).get(request.pipeline)
    if request.spec_digest and pipeline.digest != request.spec_digest:
        raise SpecError(
            f"pipeline {request.pipeline!r} has changed since the DAG was built "
            f"(digest {pipeline.digest[:12]}, the run was started with {request.spec_digest[:12]})",
            where=str(pipeline.folder / SPEC_FILE),
            expected="the same spec, features and query in every step of a run",
            next=f"start a new run with: perennial run {request.pipeline}",
        )
    return pipeline


def _call(request: StepRequest, platform: Platform) -> Outcome:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when OpenMP is loaded: idle threads must not spin
    context = StepContext(request, load_for(request, platform), platform)
    module = importlib.import_module(f"perennial_steps.{request.step}")
    return look(cast("Callable[[StepContext], Outcome]", module.run), context)


def look(run: Callable[[StepContext], Outcome], context: StepContext) -> Outcome:
    """The outcome of `run`: one look, and those after it that are less than `SHORT_WAIT` away."""
    while True:
        outcome = run(context)
        if outcome.again_after is None or outcome.again_after >= SHORT_WAIT or outcome.first:
            return outcome
        time.sleep(outcome.again_after)
        context = replace(context, request=context.request.model_copy(update={"state": outcome.state}))


def _result(request: StepRequest, outcome: Outcome) -> StepResult:
    bad = sorted(name for name, value in outcome.metrics.items() if not math.isfinite(value))
    if bad:
        log.warning("metrics that are not finite numbers are left out: %s", ", ".join(bad))
    failure = StepFailure(type=f"{request.step}.{outcome.verdict.value}", message="") if outcome.failure else None
    if failure and outcome.failure:
        failure = StepFailure(
            type=failure.type, message=_shortened(without_secrets(outcome.failure), _FAILURE_BYTES[0])
        )
    return StepResult(
        step=request.step,
        run_key=request.run_key,
        verdict=outcome.verdict,
        summary=_one_line(outcome.summary),
        outputs=outcome.outputs,
        metrics={name: float(value) for name, value in outcome.metrics.items() if name not in bad},
        failure=failure,
        again_after=outcome.again_after,
        state=outcome.state,
        first=outcome.first,
    )


def _failed(request: StepRequest, verdict: Verdict, error: BaseException) -> StepResult:
    text = str(error) if isinstance(error, PerennialError) else f"{type(error).__name__}: {error}"
    message = _shortened(without_secrets(text), _FAILURE_BYTES[0])
    return StepResult(
        step=request.step,
        run_key=request.run_key,
        verdict=verdict,
        summary=_one_line(text),
        failure=StepFailure(type=type(error).__name__, message=message),
    )


def _fitting(result: StepResult) -> StepResult:
    """`result`, or what can be said of it within the bounds of the contract."""
    problem: ContractError | None = None
    for limit in _FAILURE_BYTES:
        if result.failure:
            shorter = StepFailure(type=result.failure.type, message=_shortened(result.failure.message, limit))
            result = result.model_copy(update={"failure": shorter})
        try:
            result.to_message()
        except ContractError as error:
            problem = error
        except ValueError as error:  # pydantic's serialisation error: an output that is not JSON
            problem = ContractError(
                f"an output of step {result.step} is not JSON: {error}",
                expected="str, int, float, bool, None, list and dict",
            )
        else:
            return result
    message = _shortened(str(problem), _FAILURE_BYTES[-1])
    failure = StepFailure(type="ContractError", message=message)
    return result.model_copy(
        update={
            "verdict": Verdict.FAIL,
            "summary": _one_line(message),
            "outputs": {},
            "metrics": {},
            "failure": failure,
            "again_after": None,
            "state": {},
            "first": None,
        }
    )


def _report(request: StepRequest, result: StepResult) -> None:
    level = logging.INFO if result.verdict in {Verdict.PASS, Verdict.PENDING} else logging.ERROR
    said = result.failure.message if result.failure else result.summary
    log.log(level, "%s %s: %s in %.1f s: %s", request.pipeline, request.step, result.verdict, result.seconds, said)


def _one_line(text: str) -> str:
    line = " ".join(without_secrets(text).split())
    return line if len(line) <= _SUMMARY_CHARACTERS else line[: _SUMMARY_CHARACTERS - 1] + "…"


def _shortened(text: str, limit: int) -> str:
    """The start of `text` that takes at most `limit` bytes as JSON: the contract counts bytes, and escapes count too."""
    if len(json.dumps(text, ensure_ascii=False).encode(errors="replace")) - 2 <= limit:
        return text
    size, kept = len("…".encode()), 0
    for character in text:
        size += len(json.dumps(character, ensure_ascii=False).encode(errors="replace")) - 2
        if size > limit:
            break
        kept += 1
    return text[:kept] + "…"
