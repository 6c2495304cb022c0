"""The contract between whoever runs a step and the step: one typed request in, one typed result out.

The request comes in a file named by `PERENNIAL_STEP_REQUEST_FILE` or as JSON in `PERENNIAL_STEP_REQUEST`. The result goes to the file
named by `PERENNIAL_STEP_RESULT_FILE`, by default Kubernetes' `/dev/termination-log`, which holds 4,096 bytes. Logs go to stderr.
A step run twice with the same run key has the effect of one run.

A step that must wait does not: its result is `pending`, and says after how many seconds (`again_after`) it is to be run again, with what it
wants to remember (`state`), which comes back in the next request. Each such run is a look. Between two looks nothing is held: no process,
no pod; and nothing is lost when everything is restarted. The result of a look is as regular as the last one: summary, outputs, metrics.
It may name another step that is to run `first`: a challenger whose champion has changed is evaluated again.

Outputs by step (values are JSON; the next steps find them in `StepRequest.inputs[step]`):

    ingest    data_uri, data_version, rows, landed [partition, ...], first, last (ISO timestamps)
    validate  data_version, docs_uri, checks, warnings [str, ...]
    train     run_id, model_version, train_rows, holdout {from, to, rows}
    evaluate  model_version, champion_version, gates [{gate, value, bound, passed}, ...], slices [{gate, slice, value, rows}, ...],
              gain, gain_low, gain_high, card (URL)
    signoff   model_version, answer (approved, rejected), by, at, reason
    deploy    model_version, share, revision
    analyse   model_version, share, standing (the verdict if this were the last look; error while it is held), watched_seconds,
              held_seconds, requests, error_rate, latency_p99, prediction_psi, prediction_shift (from the champion's), quality;
              reason (when it is not a pass)
    compare   model_version, standing, watched_seconds, held_seconds, rows, agreement, prediction_psi (to the champion's), difference
              (mean); disagreements (URL, when it is over), reason (when it is not a pass)
    experiment model_version, champion_version, strategy, standing, watched_seconds, held_seconds (as of analyse), challenger and champion
              {n, mean}; ab: {dealt} of each, mixed, effect, effect_low, effect_high; bandit: probability_best and share of the
              challenger; plot_uri (when it is over), reason (when it is not a pass)
    promote   model_version, previous_version, revision
    rollback  model_version, champion_version, revision
    retire    archived [version, ...], kept (a number), deleted_files, pinned [version of the data, ...]
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from perennial_spec import names
from perennial_spec.base import Model
from perennial_spec.errors import ContractError

PROTOCOL = 1
APPROVE, REJECT = "Approve", "Reject"
"""What a person answers when a run asks for approval; in the inputs of `signoff` under `approve`, as Airflow hands it on."""
MAX_RESULT_BYTES = 4096
"""What Kubernetes keeps of a termination message."""

StepName = Literal[
    "ingest",
    "validate",
    "train",
    "evaluate",
    "signoff",
    "deploy",
    "analyse",
    "compare",
    "experiment",
    "promote",
    "rollback",
    "retire",
]
STEPS: tuple[StepName, ...] = get_args(StepName)


class Verdict(StrEnum):
    """What a step came to. Exit codes of the process: 0, 10, 11, 0 and 1."""

    PASS = "pass"  # noqa: S105 (not a password)
    FAIL = "fail"
    """The step worked, and the answer is no: a gate failed, an expectation was not met. Trying again changes nothing."""
    INCONCLUSIVE = "inconclusive"
    PENDING = "pending"
    """The answer is not known yet: run the step again after `StepResult.again_after`. Nothing went wrong, and nothing may build on it."""
    ERROR = "error"
    """The step did not work. It may be tried again."""

    @property
    def exit_code(self) -> int:
        return {"pass": 0, "fail": 10, "inconclusive": 11, "pending": 0, "error": 1}[self.value]


class Reason(Model):
    """Why a run was started; kept with every model version."""

    kind: Literal["alert", "schedule", "person", "data"]
    summary: str = Field(max_length=500)
    """In words, for people: `feature drift: temp PSI 2.10 > 0.20`."""
    decision_id: int | None = None
    """The ledger's row, when the controller started the run."""
    alert: str | None = None
    """The alert's name."""
    actor: str | None = None
    """The person who asked."""


class StepRequest(Model):
    protocol: Literal[1] = 1
    pipeline: str
    step: StepName
    run_key: str = Field(pattern=r"^[A-Za-z0-9_.:+-]{1,200}$")
    """One run of the pipeline: Airflow's dag run id. All steps of a run share it, and retries too."""
    spec_digest: str | None = None
    """The pipeline as the DAG was built from it; a step refuses to run on files that have changed since."""
    reason: Reason
    inputs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Outputs of the steps before, by step."""
    params: dict[str, Any] = Field(default_factory=dict)
    """What distinguishes two tasks of the same step: `{"share": 0.1}` for deploy and analyse."""
    state: dict[str, Any] = Field(default_factory=dict)
    """What the look before wanted to remember; empty at the first."""


class StepFailure(Model):
    """Why a step ended with `error` or `fail`."""

    type: str
    message: str = Field(max_length=1500)


class StepResult(Model):
    protocol: Literal[1] = 1
    step: StepName
    run_key: str
    verdict: Verdict
    summary: str = Field(max_length=300)
    """One line for people."""
    outputs: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    failure: StepFailure | None = None
    seconds: float = Field(default=0.0, ge=0)
    """Wall time of the work, without process start."""
    again_after: float | None = Field(default=None, ge=0)
    """Seconds until the next look, when the verdict is `pending`, and only then."""
    state: dict[str, Any] = Field(default_factory=dict)
    """For the next look."""
    first: StepName | None = None
    """A step to run before the next look, with the same inputs and parameters; when it does not pass, there is no next look."""

    @model_validator(mode="after")
    def _pending_says_when(self) -> Self:
        if (self.verdict is Verdict.PENDING) != (self.again_after is not None):
            raise ValueError("expected again_after with the verdict pending, and with no other")
        if self.first and self.again_after is None:
            raise ValueError("expected first with the verdict pending only")
        return self

    def to_message(self) -> str:
        """JSON of at most 4,096 bytes.

        Raises:
            ContractError: it is longer.
        """
        text = self.model_dump_json(exclude_none=True)
        if len(text.encode()) > MAX_RESULT_BYTES:
            raise ContractError(
                f"the result of step {self.step} has {len(text.encode())} bytes",
                expected=f"at most {MAX_RESULT_BYTES}: what a Kubernetes termination message holds",
                next="write large outputs to the store and return their URI",
            )
        return text


def read_request() -> StepRequest:
    """The request of this process.

    Raises:
        ContractError: there is none, or it does not keep the contract.
    """
    file = os.environ.get(names.ENV_REQUEST_FILE)
    text = Path(file).read_text() if file else os.environ.get(names.ENV_REQUEST)
    if not text:
        raise ContractError(
            "no step request", expected=f"JSON in {names.ENV_REQUEST} or a file named by {names.ENV_REQUEST_FILE}"
        )
    try:
        return StepRequest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractError(f"step request: {where}: {first['msg']}", expected=f"protocol {PROTOCOL}") from None


def write_result(result: StepResult) -> None:
    """Write the result to where the caller looks for it."""
    Path(os.environ.get(names.ENV_RESULT_FILE, "/dev/termination-log")).write_text(result.to_message())


def parse_result(text: str) -> StepResult:
    """A result as a step wrote it.

    Raises:
        ContractError: not a result of this protocol.
    """
    try:
        return StepResult.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractError(
            f"step result: {where}: {first['msg']}", expected=f"a StepResult of protocol {PROTOCOL}"
        ) from None
