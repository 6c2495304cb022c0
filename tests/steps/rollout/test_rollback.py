"""rollback: back to the champion from wherever a run has got to."""

from __future__ import annotations

import pytest

from perennial_spec import names
from perennial_spec.step import Verdict
from perennial_steps import deploy, promote, rollback

BACK = {"aliases": {"champion": "1"}, "weights": {"1": 1.0}, "verdicts": {"1": "promoted", "2": "rolled_back"}}


def canary(rollout, share: float = 0.1) -> tuple[str, str]:
    champion, challenger = rollout.trained.champion(), rollout.trained.version()
    deploy.run(rollout.context("deploy", challenger, champion, share=share, wait=False))
    return champion, challenger


def test_all_traffic_goes_back_and_the_reason_is_kept(rollout) -> None:
    champion, challenger = canary(rollout)
    outcome = rollback.run(rollout.context("rollback", challenger, champion, reason="error rate 4% > 1%"))
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs == {"model_version": "2", "champion_version": "1", "revision": 3}
    assert rollout.state() == BACK
    assert rollout.trained.registry.get(rollout.name, "2").tags[names.TAG_VERDICT_REASON] == "error rate 4% > 1%"


def test_the_reason_of_analyse_is_kept_when_none_is_given(rollout) -> None:
    champion, challenger = canary(rollout)
    context = rollout.context("rollback", challenger, champion)
    context.request.inputs["analyse"] = {"reason": "version 2 at 10% fails"}
    rollback.run(context)
    assert rollout.trained.registry.get(rollout.name, "2").tags[names.TAG_VERDICT_REASON] == "version 2 at 10% fails"


def test_rolling_back_twice_changes_nothing(rollout) -> None:
    champion, challenger = canary(rollout)
    first = rollback.run(rollout.context("rollback", challenger, champion))
    assert rollback.run(rollout.context("rollback", challenger, champion)) == first
    assert rollout.state() == BACK


# route, reason, verdict, alias
@pytest.mark.parametrize("writes", range(4))
def test_a_kill_before_any_write_is_repaired_by_running_again(rollout, killed_after, writes: int) -> None:
    champion, challenger = canary(rollout)
    with killed_after(writes):
        rollback.run(rollout.context("rollback", challenger, champion))
    assert rollout.state() != BACK
    rollback.run(rollout.context("rollback", challenger, champion))
    assert rollout.state() == BACK


def test_the_route_is_the_first_write(rollout, killed_after) -> None:
    champion, challenger = canary(rollout)
    with killed_after(1):
        rollback.run(rollout.context("rollback", challenger, champion))
    assert rollout.state()["weights"] == {"1": 1.0}


@pytest.mark.parametrize("verdict", ["rejected", "registered"])
def test_a_version_that_was_never_deployed_keeps_its_verdict(rollout, verdict: str) -> None:
    champion, challenger = rollout.trained.champion(), rollout.trained.version(verdict)
    before = rollout.state()
    outcome = rollback.run(rollout.context("rollback", challenger, champion))
    assert outcome.verdict is Verdict.PASS
    assert "nothing was deployed" in outcome.summary
    assert rollout.state() == before


def test_a_challenger_that_was_rejected_in_the_midst_of_its_rollout_leaves_the_route(rollout) -> None:
    champion, challenger = canary(rollout, 0.5)
    rollout.trained.registry.tag(rollout.name, challenger, names.TAG_VERDICT, "rejected")
    outcome = rollback.run(rollout.context("rollback", challenger, champion))
    assert outcome.summary == "version 2, which is rejected, has no traffic any more: version 1 serves"
    assert rollout.state() == BACK | {"verdicts": {"1": "promoted", "2": "rejected"}}


def test_a_run_that_ended_before_training_has_nothing_to_roll_back(rollout) -> None:
    outcome = rollback.run(rollout.context("rollback", None, None))
    assert outcome.verdict is Verdict.PASS
    assert outcome.summary == "nothing was deployed: there is no champion"
    assert outcome.outputs["revision"] == 0


def test_a_challenger_that_an_earlier_run_left_is_taken_out(rollout) -> None:
    canary(rollout, 0.5)
    rollback.run(rollout.context("rollback", None, None))
    assert rollout.state() == BACK


def test_a_promoted_version_is_not_taken_back(rollout) -> None:
    champion, challenger = canary(rollout, 1.0)
    promote.run(rollout.context("promote", challenger, champion))
    before = rollout.state()
    outcome = rollback.run(rollout.context("rollback", challenger, champion))
    assert outcome.summary == "nothing was deployed: version 2 serves"
    assert rollout.state() == before


def test_the_first_model_leaves_nothing_serving(rollout) -> None:
    first = rollout.trained.version()
    deploy.run(rollout.context("deploy", first, None, share=1.0, wait=False))
    rollback.run(rollout.context("rollback", first, None))
    assert rollout.state() == {"aliases": {}, "weights": {}, "verdicts": {"1": "rolled_back"}}


def test_a_rolled_back_version_is_not_deployed_again(rollout) -> None:
    champion, challenger = canary(rollout)
    rollback.run(rollout.context("rollback", challenger, champion))
    outcome = deploy.run(rollout.context("deploy", challenger, champion, share=0.1, wait=False))
    assert outcome.verdict is Verdict.FAIL
    assert rollout.state() == BACK
