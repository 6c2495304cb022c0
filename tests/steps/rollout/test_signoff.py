"""signoff: what a person answered, kept with the version, against a real registry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perennial_spec import names
from perennial_spec.errors import ContractError
from perennial_spec.step import Verdict
from perennial_steps import deploy, signoff

AT = "2026-06-01T12:00:00+00:00"
ADMIN = {"id": "1", "name": "admin"}


def asked(rollout: Any, version: str, answer: Any) -> Any:
    context = rollout.context("signoff", version, None)
    if answer is not None:
        context.request.inputs["approve"] = answer
    return signoff.run(context)


def answer(option: str, user: Any = ADMIN, **said: str) -> dict[str, Any]:
    """As Airflow hands it on."""
    return {"chosen_options": [option], "params_input": said, "responded_at": AT, "responded_by_user": user}


def kept(rollout: Any, version: str) -> tuple[dict[str, str], str]:
    tags = rollout.trained.registry.get(rollout.name, version).tags
    return json.loads(tags[names.TAG_SIGN_OFF]), tags[names.TAG_VERDICT]


def challenger(rollout: Any) -> str:
    version = str(rollout.trained.version())
    rollout.trained.registry.set_alias(rollout.name, names.ALIAS_CHALLENGER, version)
    return version


def test_who_approved_when_and_why_stays_with_the_version(rollout) -> None:
    version = challenger(rollout)
    outcome = asked(rollout, version, answer("Approve", why="the gain is worth it", on_behalf_of="ann"))
    record = {"answer": "approved", "by": "ann (as admin)", "at": AT, "reason": "the gain is worth it"}
    assert outcome.verdict is Verdict.PASS
    assert outcome.summary == "version 1 approved by ann (as admin): the gain is worth it"
    assert outcome.outputs == {"model_version": version, **record}
    assert kept(rollout, version) == (record, "passed")


def test_a_rejected_challenger_ends_the_run_and_cannot_be_deployed(rollout) -> None:
    version = challenger(rollout)
    outcome = asked(rollout, version, answer("Reject", why="not before the holidays"))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure == "version 1 rejected by admin: not before the holidays"
    record, verdict = kept(rollout, version)
    assert (record["answer"], verdict) == ("rejected", "rejected")
    assert rollout.state()["aliases"] == {}
    refused = deploy.run(rollout.context("deploy", version, None, share=1, wait=False))
    assert "is rejected: only a version that passed its gates is deployed" in refused.summary


@pytest.mark.parametrize("said", [{}, None])
def test_no_answer_in_time_is_told_as_that(rollout, said: Any) -> None:
    version = challenger(rollout)
    given = {"chosen_options": ["Reject"], "params_input": said, "responded_at": AT, "responded_by_user": None}
    assert asked(rollout, version, given).summary == "version 1 rejected by nobody, in time"


@pytest.mark.parametrize("writes", range(4))
def test_killed_between_two_writes_and_run_again_it_ends_the_same(rollout, killed_after, writes: int) -> None:
    version = challenger(rollout)
    with killed_after(writes):
        asked(rollout, version, answer("Reject", why="no"))
    asked(rollout, version, answer("Reject", why="no"))
    assert kept(rollout, version)[1] == "rejected"
    assert rollout.state()["aliases"] == {}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "signoff needs 'chosen_options' of step approve"),
        ({"chosen_options": ["Perhaps"]}, r"the answer is \['Perhaps'\]"),
        ({"chosen_options": ["Approve", "Reject"]}, "the answer is"),
    ],
)
def test_what_is_not_an_answer_is_refused(rollout, given: Any, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        asked(rollout, challenger(rollout), given)
