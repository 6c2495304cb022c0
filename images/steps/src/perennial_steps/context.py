"""What a step is given, and what it gives back: the typed inside of the request/result contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perennial_spec.errors import ContractError
from perennial_spec.load import Pipeline
from perennial_spec.platform import Platform
from perennial_spec.step import StepName, StepRequest, Verdict


@dataclass(frozen=True)
class StepContext:
    """One call of a step."""

    request: StepRequest
    pipeline: Pipeline
    platform: Platform

    def input(self, step: str, key: str) -> Any:
        """An output of a step before this one.

        Raises:
            ContractError: that step did not run, or has no such output.
        """
        try:
            return self.request.inputs[step][key]
        except KeyError:
            raise ContractError(
                f"step {self.request.step} needs {key!r} of step {step}",
                where="StepRequest.inputs",
                expected=f"inputs.{step}.{key}",
                next=f"run {step} first, or give it with: --input {step}.{key}=VALUE",
            ) from None

    def param(self, key: str) -> Any:
        """A parameter of this call.

        Raises:
            ContractError: it was not given.
        """
        if key not in self.request.params:
            raise ContractError(
                f"step {self.request.step} needs the parameter {key!r}",
                where="StepRequest.params",
                next=f"give it with: --param {key}=VALUE",
            )
        return self.request.params[key]


@dataclass(frozen=True)
class Outcome:
    """What a step came to; the runner adds the envelope of a `StepResult`."""

    summary: str
    outputs: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    verdict: Verdict = Verdict.PASS
    failure: str | None = None
    """Why the verdict is `fail`, in words."""
    again_after: float | None = None
    """Seconds until the next look, when the verdict is `pending`."""
    state: dict[str, Any] = field(default_factory=dict)
    """What the next look finds in `StepRequest.state`."""
    first: StepName | None = None
    """A step that is to run before the next look."""
