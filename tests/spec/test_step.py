from __future__ import annotations

from pathlib import Path

import pytest

from perennial_spec.errors import ContractError
from perennial_spec.step import Reason, StepRequest, StepResult, Verdict, parse_result, read_request, write_result


def request() -> StepRequest:
    return StepRequest(pipeline="demo", step="train", run_key="manual__1", reason=Reason(kind="person", summary="try"))


def test_a_request_is_read_from_the_variable_or_from_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERENNIAL_STEP_REQUEST", request().model_dump_json())
    assert read_request() == request()
    other = request().model_copy(update={"run_key": "manual__2"})
    (tmp_path / "r.json").write_text(other.model_dump_json())
    monkeypatch.setenv("PERENNIAL_STEP_REQUEST_FILE", str(tmp_path / "r.json"))
    assert read_request() == other


def test_no_request_and_a_foreign_request_are_contract_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match="no step request"):
        read_request()
    monkeypatch.setenv("PERENNIAL_STEP_REQUEST", request().model_dump_json().replace('"protocol":1', '"protocol":2'))
    with pytest.raises(ContractError, match="protocol"):
        read_request()


def test_a_result_survives_the_termination_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = StepResult(step="train", run_key="r", verdict=Verdict.PASS, summary="done", metrics={"roc_auc": 0.7})
    monkeypatch.setenv("PERENNIAL_STEP_RESULT_FILE", str(tmp_path / "result"))
    write_result(result)
    assert parse_result((tmp_path / "result").read_text()) == result


def test_a_result_that_kubernetes_would_cut_is_refused() -> None:
    result = StepResult(step="train", run_key="r", verdict=Verdict.PASS, summary="s", outputs={"x": "y" * 5000})
    with pytest.raises(ContractError, match="at most 4096"):
        result.to_message()


@pytest.mark.parametrize("text", ["", "{}", "Killed", '{"step":"train"}'])
def test_what_is_no_result_is_told(text: str) -> None:
    with pytest.raises(ContractError, match="step result"):
        parse_result(text)


def test_exit_codes_tell_the_verdicts_apart() -> None:
    assert len({verdict.exit_code for verdict in Verdict}) == 4
