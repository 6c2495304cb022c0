"""Tasks and groups of tasks to build a DAG from: the factory's own parts, and the public interface for a DAG of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, Param, TaskGroup

from perennial_operators.contract import StepCall
from perennial_operators.docs import evidence
from perennial_operators.settings import Settings
from perennial_spec.load import Pipeline
from perennial_spec.step import APPROVE, REJECT, StepName

RETRY_DELAY = timedelta(seconds=10)
MAX_RETRY_DELAY = timedelta(minutes=5)
ROLLBACK_RETRIES = 3
"""At least: of all steps this one must not give up early."""


def step(
    pipeline: Pipeline,
    name: StepName,
    *,
    task_id: str | None = None,
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> BaseOperator:
    """One step of a pipeline as a task; resources, timeout and retries come from the specification.

    It is given the outputs of every step upstream of it, and returns its own outputs as XCom (see `perennial_spec.step`).

    Args:
        pipeline: from `the_pipeline`.
        name: the step.
        task_id: the step's name when None.
        params: what distinguishes two tasks of one step, as `{"share": 0.1}` for deploy and analyse.
        inputs: step to task id: give it what that task returned in place of the outputs of that step.
    """
    settings = Settings.from_environment()
    call = StepCall(pipeline, name, params or {}, inputs or {})
    common: dict[str, Any] = {
        "task_id": task_id or name,
        "call": call,
        "retries": _retries(pipeline, name),
        "retry_delay": RETRY_DELAY,
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": MAX_RETRY_DELAY,
        "execution_timeout": max(pipeline.spec.step_timeout(each) for each in (name, *_MAY_RUN_BEFORE.get(name, ()))),
        "doc_md": _DOCS[name],
    }
    if settings.backend == "local" or settings.pod_file is None:
        from perennial_operators.local import LocalStepOperator

        return LocalStepOperator(**common)
    from perennial_k8s.settings import load_pod_settings
    from perennial_operators.kubernetes import KubernetesStepOperator

    return KubernetesStepOperator(pods=load_pod_settings(settings.pod_file), **common)


def data_group(pipeline: Pipeline) -> TaskGroup:
    """ingest, validate."""
    with TaskGroup("data", prefix_group_id=False, tooltip="Land new data, and check it") as group:
        _ = step(pipeline, "ingest") >> step(pipeline, "validate")
    return group


def training_group(pipeline: Pipeline) -> TaskGroup:
    """train, evaluate."""
    with TaskGroup("training", prefix_group_id=False, tooltip="Train a challenger, and judge it") as group:
        _ = step(pipeline, "train") >> step(pipeline, "evaluate")
    return group


def approval_group(pipeline: Pipeline) -> TaskGroup:
    """A person reads the evidence and answers. The answer stays with the version; a rejection ends the run before any traffic moves."""
    from airflow.providers.standard.operators.hitl import HITLOperator  # slow to import, and seldom needed
    from airflow.sdk.execution_time.hitl import HITLUser

    deployment = pipeline.spec.deployment
    with TaskGroup("approval", prefix_group_id=False, tooltip="A person signs off") as group:
        # Not Airflow's ApprovalOperator: after a rejection the run would be a success, or fail without a word of why.
        asked = HITLOperator(
            task_id="approve",
            subject=f"Deploy the new model of {pipeline.name}?",
            body=evidence(pipeline.spec),
            options=[APPROVE, REJECT],
            defaults=APPROVE if deployment.on_approval_timeout == "approve" else REJECT,
            params={  # no name that a run's conf has: Airflow would take its value
                "why": Param("", type="string", title="Why", description="Kept with the model version."),
                "on_behalf_of": Param("", type="string", title="On behalf of", description="Empty: you."),
            },
            assigned_users=[HITLUser(id=user, name=user) for user in deployment.approvers] or None,
            response_timeout=deployment.approval_timeout,
            retries=0,
        )
        _ = asked >> step(pipeline, "signoff", inputs={"approve": "approve"})
    return group


def _retries(pipeline: Pipeline, name: StepName) -> int:
    retries = pipeline.spec.step_resources(name).retries
    return max(retries, ROLLBACK_RETRIES) if name == "rollback" else retries


_MAY_RUN_BEFORE: dict[StepName, tuple[StepName, ...]] = {
    "deploy": ("evaluate",),
    "analyse": ("evaluate", "deploy"),
    "compare": ("evaluate", "deploy"),
    "experiment": ("evaluate", "deploy"),
    "promote": ("evaluate",),
}
"""Steps that run in the task of another one when the champion has changed; see `perennial_steps.challenger`."""
_DOCS: dict[StepName, str] = {
    "ingest": "Lands each new or changed partition of the sources as one new version of the Delta table.",
    "validate": "Checks the newest data against the expectations. `stop` ends the run here, before any model sees the data.",
    "train": "Trains a challenger on the window and registers it; no traffic reaches it.",
    "evaluate": "Judges the challenger on the holdout: every gate must hold. Failed means: the champion stays.",
    "signoff": "Keeps what a person answered with the version. Rejected, the run ends here, and no traffic has moved.",
    "deploy": "Gives the challenger its share of the traffic.",
    "analyse": "Watches the challenger at this share, in Prometheus, beside the champion: one look after the other, none in between.",
    "experiment": "Compares champion and challenger by what came of their answers, until one of them is better beyond chance.",
    "compare": "Compares what the challenger, as a shadow, says to the rows that the champion answers.",
    "promote": "Makes the challenger champion, with all of the traffic.",
    "retire": "Archives versions whose time is over, as `lifetime` says. What serves or may be gone back to stays.",
    "rollback": "Gives all traffic back to the champion. Runs only when the rollout failed after it had begun.",
}
