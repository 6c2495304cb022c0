from __future__ import annotations

from typing import Any

import pytest

from perennial_k8s.ending import ending_of, result_of
from perennial_spec.errors import ContractError, PlatformError
from perennial_spec.step import StepRequest, StepResult, Verdict


def pod(terminated: dict[str, Any] | None, phase: str = "Failed", **status: Any) -> dict[str, Any]:
    state = {"terminated": terminated} if terminated else {"running": {}}
    containers = [{"name": "istio-proxy", "state": {"running": {}}}, {"name": "step", "state": state}]
    return {
        "metadata": {"name": "churn-train-1", "namespace": "growth"},
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }


def ended(request: StepRequest, terminated: dict[str, Any] | None, **status: Any) -> StepResult:
    ending = ending_of(pod(terminated, **status))
    assert ending is not None
    return result_of(ending, request)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_result_is_read_whatever_the_verdict(verdict: Verdict, request_of_train: StepRequest) -> None:
    again = 60.0 if verdict is Verdict.PENDING else None
    key = request_of_train.run_key
    result = StepResult(step="train", run_key=key, verdict=verdict, summary="done", again_after=again)
    terminated = {"exitCode": verdict.exit_code, "reason": "Error", "message": result.to_message()}
    assert ended(request_of_train, terminated) == result


def test_a_pod_that_runs_has_no_ending() -> None:
    assert ending_of(pod(None, phase="Running")) is None
    assert ending_of({"metadata": {"name": "x"}}) is None


def test_out_of_memory_says_so_and_what_to_raise(request_of_train: StepRequest) -> None:
    with pytest.raises(PlatformError, match=r"ran out of memory.*OOMKilled[\s\S]*raise resources\.train\.memory"):
        ended(request_of_train, {"exitCode": 137, "reason": "OOMKilled"})


def test_out_of_memory_after_the_result_was_written_still_has_the_result(request_of_train: StepRequest) -> None:
    result = StepResult(step="train", run_key=request_of_train.run_key, verdict=Verdict.PASS, summary="done")
    assert ended(request_of_train, {"exitCode": 137, "reason": "OOMKilled", "message": result.to_message()}) == result


def test_a_pod_past_its_deadline_says_so(request_of_train: StepRequest) -> None:
    with pytest.raises(PlatformError, match=r"longer than its deadline[\s\S]*raise resources\.train\.timeout"):
        ended(request_of_train, {"exitCode": 143, "reason": "Error"}, reason="DeadlineExceeded")


def test_an_evicted_pod_says_why(request_of_train: StepRequest) -> None:
    with pytest.raises(PlatformError, match=r"ended by Kubernetes \(Evicted: The node was low on resource"):
        ended(request_of_train, None, reason="Evicted", message="The node was low on resource: memory.")


def test_a_container_that_died_early_shows_the_end_of_its_log(request_of_train: StepRequest) -> None:
    message = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'perennial_steps'"
    with pytest.raises(
        ContractError, match=r"exit code 1 \(Error\) before it could write[\s\S]*No module named"
    ) as caught:
        ended(request_of_train, {"exitCode": 1, "reason": "Error", "message": message})
    assert "growth/churn-train-1" in str(caught.value)


def test_no_message_at_all_says_so(request_of_train: StepRequest) -> None:
    with pytest.raises(ContractError, match=r"exit code 0 \(Completed\) and left no result and no log"):
        ended(request_of_train, {"exitCode": 0, "reason": "Completed"}, phase="Succeeded")


def test_json_that_is_not_a_result_says_which_field_is_wrong(request_of_train: StepRequest) -> None:
    with pytest.raises(ContractError, match="left what is not a result: step result: verdict"):
        ended(
            request_of_train, {"exitCode": 0, "message": '{"step":"train","run_key":"r","summary":"s","verdict":"yes"}'}
        )


def test_the_result_of_another_run_is_refused(request_of_train: StepRequest) -> None:
    other = StepResult(step="train", run_key="another", verdict=Verdict.PASS, summary="done")
    with pytest.raises(ContractError, match="left the result of step train, run another"):
        ended(request_of_train, {"exitCode": 0, "message": other.to_message()})
