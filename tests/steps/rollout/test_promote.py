"""promote: aliases and route, in an order that survives a kill between any two writes."""

from __future__ import annotations

import pytest

from perennial_spec import names
from perennial_spec.errors import ContractError, RegistryError
from perennial_spec.step import Verdict
from perennial_steps import deploy, promote, rollback


def rolled_out(rollout) -> tuple[str, str]:
    """A champion, and a challenger that has all of the traffic."""
    champion = rollout.trained.champion()
    challenger = rollout.trained.version()
    deploy.run(rollout.context("deploy", challenger, champion, share=1.0, wait=False))
    return champion, challenger


DONE = {
    "aliases": {"champion": "2", "previous": "1"},
    "weights": {"2": 1.0},
    "verdicts": {"1": "promoted", "2": "promoted"},
}


def test_the_challenger_becomes_champion_and_the_champion_previous(rollout) -> None:
    champion, challenger = rolled_out(rollout)
    outcome = promote.run(rollout.context("promote", challenger, champion))
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs == {"model_version": "2", "previous_version": "1", "revision": 3}
    assert rollout.state() == DONE
    assert rollout.trained.registry.get(rollout.name, "2").tags[names.TAG_PROMOTED_AT].endswith("+00:00")


def test_the_first_model_becomes_champion_without_a_previous(rollout) -> None:
    first = rollout.trained.version()
    deploy.run(rollout.context("deploy", first, None, share=0.1, wait=False))
    outcome = promote.run(rollout.context("promote", first, None))
    assert outcome.outputs["previous_version"] is None
    assert rollout.state() == {"aliases": {"champion": "1"}, "weights": {"1": 1.0}, "verdicts": {"1": "promoted"}}


def test_promoting_twice_changes_nothing(rollout) -> None:
    champion, challenger = rolled_out(rollout)
    first = promote.run(rollout.context("promote", challenger, champion))
    at = rollout.trained.registry.get(rollout.name, "2").tags[names.TAG_PROMOTED_AT]
    assert promote.run(rollout.context("promote", challenger, champion)) == first
    assert rollout.state() == DONE
    assert rollout.trained.registry.get(rollout.name, "2").tags[names.TAG_PROMOTED_AT] == at


# From 50%, so that the route is one of the writes: route, previous, champion, promoted_at, verdict, challenger removed.
@pytest.mark.parametrize("writes", range(6))
def test_a_kill_before_any_write_is_repaired_by_running_again(rollout, killed_after, writes: int) -> None:
    champion, challenger = rollout.trained.champion(), rollout.trained.version()
    deploy.run(rollout.context("deploy", challenger, champion, share=0.5, wait=False))
    with killed_after(writes):
        promote.run(rollout.context("promote", challenger, champion))
    between = rollout.state()
    assert between != DONE
    assert sum(between["weights"].values()) == 1
    assert between["aliases"]["champion"] in {"1", "2"}
    promote.run(rollout.context("promote", challenger, champion))
    assert rollout.state() == DONE


@pytest.mark.parametrize("writes", range(6))
def test_a_kill_before_any_write_can_be_rolled_back_to_one_champion(rollout, killed_after, writes: int) -> None:
    champion, challenger = rollout.trained.champion(), rollout.trained.version()
    deploy.run(rollout.context("deploy", challenger, champion, share=0.5, wait=False))
    with killed_after(writes):
        promote.run(rollout.context("promote", challenger, champion))
    assert rollback.run(rollout.context("rollback", challenger, champion)).verdict is Verdict.PASS
    state = rollout.state()
    assert state["weights"] == {state["aliases"]["champion"]: 1.0}
    assert "challenger" not in state["aliases"]


def test_six_writes_are_all_that_promote_makes(rollout, killed_after) -> None:
    champion, challenger = rollout.trained.champion(), rollout.trained.version()
    deploy.run(rollout.context("deploy", challenger, champion, share=0.5, wait=False))
    with killed_after(6, dies=False):
        promote.run(rollout.context("promote", challenger, champion))
    assert rollout.state() == DONE


def test_another_champion_than_the_one_it_was_judged_against_is_not_replaced(rollout) -> None:
    champion, challenger = rolled_out(rollout)
    other = rollout.trained.version("promoted")
    rollout.trained.registry.set_alias(rollout.name, names.ALIAS_CHAMPION, other)
    before = rollout.state()
    outcome = promote.run(rollout.context("promote", challenger, champion))
    assert (outcome.verdict, outcome.first) == (Verdict.PENDING, "evaluate")
    assert outcome.summary == "version 2 was judged against 1, champion is 3 now: it is judged again"
    assert rollout.state() == before


def test_a_version_that_was_champion_before_is_not_brought_back_by_its_old_run(rollout) -> None:
    rollout.trained.champion()
    old = rollout.trained.version("promoted")
    outcome = promote.run(rollout.context("promote", old, "7"))
    assert outcome.failure == "version 2 was champion before: a rollout does not bring it back"


@pytest.mark.parametrize("verdict", ["rejected", "rolled_back", "registered"])
def test_only_a_version_that_passed_is_promoted(rollout, verdict: str) -> None:
    champion, challenger = rollout.trained.champion(), rollout.trained.version(verdict)
    before = rollout.state()
    outcome = promote.run(rollout.context("promote", challenger, champion))
    assert outcome.verdict is Verdict.FAIL
    assert verdict in (outcome.failure or "")
    assert rollout.state() == before


def test_without_train_and_evaluate_it_says_what_is_missing(rollout) -> None:
    with pytest.raises(ContractError, match="needs 'model_version' of step train"):
        promote.run(rollout.context("promote", None, None))


def test_a_version_that_does_not_exist_is_an_error(rollout) -> None:
    rollout.trained.version()
    with pytest.raises(RegistryError, match="no version 7"):
        promote.run(rollout.context("promote", "7", None))


def test_it_runs_as_a_process_too(rollout) -> None:
    champion, challenger = rolled_out(rollout)
    code, result, log = rollout.room.process(rollout.context("promote", challenger, champion).request)
    assert (code, result.verdict) == (0, Verdict.PASS), log
    assert rollout.state() == DONE
