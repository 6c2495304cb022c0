"""The contract between a task of Airflow and a step, the same for every backend: request out of the run, task state out of the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from pydantic import ValidationError

from perennial_operators import looks
from perennial_operators.reason import reason_of
from perennial_spec.errors import ContractError
from perennial_spec.load import Pipeline
from perennial_spec.step import StepName, StepRequest, StepResult, Verdict

RESULT_KEY = "result"
"""XCom: the whole `StepResult` as JSON, and the digest of the pipeline that it was made with. Pushed whatever the verdict. A step that
ran before the task's own has its in `result_evaluate`."""


@dataclass(frozen=True)
class StepCall:
    """What one task asks of a step."""

    pipeline: Pipeline
    step: StepName
    params: Mapping[str, Any] = field(default_factory=dict)
    """`{"share": 0.1}` for deploy and analyse."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Step to task id: take that task's return value in place of the outputs of that step."""


class StepTask:
    """What the operators of all backends have in common. Mixed into an operator, before it."""

    call: StepCall

    def look_again(self, context: Context, event: Any = None) -> Any:
        """The task is resumed for the next look of its step: `looks.wait` names this method."""
        return cast("BaseOperator", self).execute(context)


def build_request(task: BaseOperator, call: StepCall, context: Context) -> StepRequest:
    """The request of `task` in the run of `context`; inputs are the outputs of every step upstream of it.

    Raises:
        AirflowFailException: the run cannot be described, or the pipeline has changed since it began.
    """
    run, look = context["dag_run"], looks.next_look(context)
    try:
        return StepRequest(
            pipeline=call.pipeline.name,
            step=look.step or call.step,
            run_key=run.run_id,
            spec_digest=call.pipeline.digest,
            reason=reason_of(run.conf, str(run.run_type.value), run.logical_date, run.triggering_user_name),
            inputs=_inputs(task, call, context),
            params=dict(call.params),
            state={} if look.step else look.state,
        )
    except ContractError as error:
        raise AirflowFailException(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AirflowFailException(f"{where} of this run: {first['msg']}; start it with another run id") from None


def conclude(result: StepResult, call: StepCall, context: Context) -> dict[str, Any]:
    """The step's outputs when it passed.

    Raises:
        TaskDeferred: the answer is not known yet; the task is resumed for the next look.
        AirflowFailException: the answer is no, or could not be told; trying again changes nothing.
        AirflowException: the step did not work; Airflow tries again as often as the specification says.
    """
    envelope = result.model_dump(mode="json", exclude_none=True) | {"spec_digest": call.pipeline.digest}
    own = result.step == call.step
    context["ti"].xcom_push(RESULT_KEY if own else f"{RESULT_KEY}_{result.step}", envelope)
    reason = result.failure.message if result.failure and result.failure.message else result.summary
    message = f"{result.step}: {result.verdict.value}: {reason}"
    if result.verdict is Verdict.PENDING or (result.verdict is Verdict.PASS and not own):
        looks.wait(context, result.again_after or 0.0, _after(result, looks.next_look(context), own=own))
    if result.verdict is Verdict.PASS or _goes_on(result, call):
        return result.outputs
    if result.verdict is Verdict.ERROR:
        raise AirflowException(message)
    raise AirflowFailException(message)


def _after(result: StepResult, look: looks.Look, *, own: bool) -> looks.Look:
    """The next look. A step that was needed first, and needs another one itself, is done again after that; the task's own comes last."""
    needed = (result.first,) if result.first else ()
    if own:
        return looks.Look(result.state, needed)
    waits = (result.step,) if result.verdict is Verdict.PENDING else ()
    return looks.Look(look.state, (*needed, *waits, *look.first[1:]))


def steps_upstream(task: BaseOperator) -> Iterator[tuple[StepName, str]]:
    """`(step, task id)` of every step before `task`, the nearest of a step last."""
    seen: set[str] = set()

    def visit(of: BaseOperator) -> Iterator[tuple[StepName, str]]:
        for before in sorted(of.upstream_list, key=lambda other: str(other.task_id)):
            if before.task_id not in seen:
                seen.add(before.task_id)
                yield from visit(cast("BaseOperator", before))
                if isinstance(before, StepTask):
                    yield before.call.step, before.task_id

    yield from visit(task)


def _inputs(task: BaseOperator, call: StepCall, context: Context) -> dict[str, dict[str, Any]]:
    ti = context["ti"]
    found: dict[str, dict[str, Any]] = {}
    for step, task_id in reversed(list(steps_upstream(task))):
        if step in call.inputs or step in found:
            continue
        result = ti.xcom_pull(task_ids=task_id, key=RESULT_KEY, map_indexes=-1)
        if not result:
            continue  # it never ran, and this task runs all the same: a rollback
        if result["spec_digest"] != call.pipeline.digest:
            raise _changed(call, step)
        found[step] = result.get("outputs", {})
    for name, stand_in in call.inputs.items():
        found[name] = _returned(ti.xcom_pull(task_ids=stand_in, map_indexes=-1), stand_in, name)
    return found


def _returned(value: Any, task_id: str, step: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(
            f"task {task_id!r} stands in for step {step} and returned {type(value).__name__}",
            where=f"inputs of the task: {{{step!r}: {task_id!r}}}",
            expected=f"a dict with the outputs of {step}",
        )
    return value


def _changed(call: StepCall, step: str) -> ContractError:
    return ContractError(
        f"the files of pipeline {call.pipeline.name} have changed since this run's step {step}",
        where=str(call.pipeline.folder),
        expected="one version of the pipeline for all steps of a run",
        next="start a new run",
    )


def _goes_on(result: StepResult, call: StepCall) -> bool:
    """A step of a rollout that nobody could judge goes on when the specification says so."""
    deployment = call.pipeline.spec.deployment
    return (
        result.step == "analyse" and result.verdict is Verdict.INCONCLUSIVE and deployment.on_inconclusive == "continue"
    )
