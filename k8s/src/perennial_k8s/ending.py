"""How a step's pod ended: the result in its termination message, or which of the ways without one it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perennial_k8s.pod import CONTAINER
from perennial_spec.errors import ContractError, PerennialError, PlatformError
from perennial_spec.step import StepRequest, StepResult, parse_result


@dataclass(frozen=True)
class Ending:
    """What Kubernetes keeps of a pod that is over."""

    pod: str
    """`namespace/name`."""
    reason: str
    """The pod's reason where it has one (Evicted, DeadlineExceeded, ...), else the container's (OOMKilled, Error, Completed)."""
    by_cluster: bool
    """The cluster ended the pod, whatever the container was doing."""
    exit_code: int | None
    """None when the container never ran, or nobody saw it end."""
    message: str
    """The container's termination message: the result, or the end of the log."""
    detail: str = ""
    """The pod's own message."""


def ending_of(pod: Mapping[str, Any]) -> Ending | None:
    """The ending of a pod as the Kubernetes API gives it (JSON, camelCase); None while it is not over."""
    status = pod.get("status") or {}
    metadata = pod.get("metadata") or {}
    terminated = _terminated(status)
    if terminated is None and status.get("phase") not in {"Failed", "Succeeded"}:
        return None
    terminated = terminated or {}
    return Ending(
        pod=f"{metadata.get('namespace', '')}/{metadata.get('name', '')}",
        reason=str(status.get("reason") or terminated.get("reason") or "Unknown"),
        by_cluster=bool(status.get("reason")) or not terminated,
        exit_code=terminated.get("exitCode"),
        message=str(terminated.get("message") or ""),
        detail=str(status.get("message") or ""),
    )


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            terminated: Mapping[str, Any] | None = (container.get("state") or {}).get("terminated")
            return terminated
    return None


def result_of(ending: Ending, request: StepRequest) -> StepResult:
    """The result that the step left.

    Raises:
        PlatformError: Kubernetes ended the pod before it had one: out of memory, evicted, past its deadline.
        ContractError: it ended by itself without one, or left the result of something else.
    """
    try:
        result = parse_result(ending.message)
    except ContractError as error:
        raise _no_result(ending, request, error) from None
    if (result.step, result.run_key) != (request.step, request.run_key):
        raise ContractError(
            f"pod {ending.pod} left the result of step {result.step}, run {result.run_key}",
            expected=f"step {request.step}, run {request.run_key}",
        )
    return result


def _no_result(ending: Ending, request: StepRequest, error: ContractError) -> PerennialError:
    step, where = request.step, f"pod {ending.pod}"
    if ending.reason == "OOMKilled":
        return PlatformError(
            f"step {step} ran out of memory and was killed (OOMKilled)",
            where=where,
            next=f"raise resources.{step}.memory in pipeline.yaml, or train on less with data.window",
        )
    if ending.reason == "DeadlineExceeded":
        return PlatformError(
            f"step {step} took longer than its deadline and was killed (DeadlineExceeded)",
            where=where,
            next=f"raise resources.{step}.timeout in pipeline.yaml",
        )
    if ending.by_cluster:
        return PlatformError(
            f"step {step} was ended by Kubernetes ({ending.reason}{': ' + ending.detail if ending.detail else ''})",
            where=where,
            next="the step may be run again; the cluster's events say more",
        )
    if not ending.message:
        return ContractError(
            f"step {step} ended with exit code {ending.exit_code} ({ending.reason}) and left no result and no log",
            where=where,
            expected="a StepResult in the termination message",
            next="check that the image's entry point is `python -m perennial_steps`",
        )
    if ending.message.lstrip().startswith("{"):
        return ContractError(f"step {step} left what is not a result: {error.what}", where=where)
    return ContractError(
        f"step {step} ended with exit code {ending.exit_code} ({ending.reason}) before it could write a result",
        where=where,
        next=f"the end of its log:\n{ending.message.strip()}",
    )
