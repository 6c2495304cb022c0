from __future__ import annotations

from datetime import UTC, datetime

import pytest

from perennial_operators.reason import reason_of
from perennial_spec.errors import ContractError
from perennial_spec.step import Reason

DUE = datetime(2026, 11, 1, tzinfo=UTC)


def test_the_reason_of_the_caller_is_kept_word_for_word() -> None:
    given = Reason(
        kind="alert", summary="feature drift: temp PSI 2.10 > 0.20", decision_id=7, alert="PerennialFeatureDrift"
    )
    assert reason_of({"reason": given.model_dump(mode="json")}, "manual", None, "controller") == given


def test_words_are_a_reason_of_a_person() -> None:
    expected = Reason(kind="person", summary="new feature", actor="ada")
    assert reason_of({"reason": " new feature "}, "manual", None, "ada") == expected


def test_a_person_who_gave_no_name_gets_the_one_that_airflow_knows() -> None:
    found = reason_of({"reason": {"kind": "person", "summary": "try"}}, "manual", None, "ada")
    assert found.actor == "ada"


@pytest.mark.parametrize("conf", [None, {}, {"reason": None}, {"reason": ""}, {"other": 1}])
@pytest.mark.parametrize(
    ("run_type", "expected"),
    [
        ("scheduled", Reason(kind="schedule", summary="scheduled for 2026-11-01T00:00:00+00:00")),
        ("manual", Reason(kind="person", summary="started by ada", actor="ada")),
        ("backfill", Reason(kind="person", summary="started by ada", actor="ada")),
        ("asset_triggered", Reason(kind="data", summary="new data")),
    ],
)
def test_without_one_it_is_made_from_the_type_of_the_run(
    conf: dict[str, object], run_type: str, expected: Reason
) -> None:
    assert reason_of(conf, run_type, DUE, "ada") == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "alarm", "summary": "x"}, r"dag_run\.conf\.reason: kind: Input should be 'alert'"),
        ({"kind": "alert"}, r"dag_run\.conf\.reason: summary: Field required"),
        (7, r"dag_run\.conf\.reason: Input should be a valid dictionary"),
    ],
)
def test_a_reason_of_another_shape_is_refused_with_the_field(given: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        reason_of({"reason": given}, "manual", None, None)


def test_long_words_are_cut_to_what_the_contract_holds() -> None:
    assert len(reason_of({"reason": "x" * 9999}, "manual", None, None).summary) == 500
