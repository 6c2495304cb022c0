"""A person takes the traffic back, against a real registry."""

from __future__ import annotations

from typing import Any

import pytest

from perennial_registry.restore import plan, restore
from perennial_spec import names
from perennial_spec.errors import RegistryError
from perennial_steps import deploy, promote, rollback


def promoted(rollout: Any, champion: str | None) -> str:
    """The number of a new version, champion after `champion` as the steps make it so."""
    version = rollout.trained.version()
    deploy.run(rollout.context("deploy", version, champion, share=1, wait=False))
    promote.run(rollout.context("promote", version, champion))
    return str(version)


def back(rollout: Any, to: str | None = None, **options: Any) -> Any:
    registry = rollout.trained.registry
    found = plan(registry, rollout.name, to, **options)
    restore(registry, found, "ann", "it was worse")
    return found


def test_after_a_promotion_the_version_before_serves_again(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    found = back(rollout)
    assert (found.target.version, str(found)) == (first, "2: 100% -> 1: 100%; rolled back: 2")
    assert rollout.state() == {
        "aliases": {"champion": first},
        "weights": {first: 1.0},
        "verdicts": {first: "promoted", second: "rolled_back"},
    }
    assert rollout.trained.registry.get(rollout.name, second).tags[names.TAG_VERDICT_REASON] == "ann: it was worse"
    assert rollout.trained.registry.route(rollout.name).changed_by == "ann"


def test_a_second_rollback_goes_further_back_and_never_forth(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    promoted(rollout, second)
    assert back(rollout).target.version == second
    assert rollout.state()["aliases"] == {"champion": second, "previous": first}
    assert back(rollout).target.version == first
    with pytest.raises(RegistryError, match="no version to go back to: version 1 is its first champion"):
        plan(rollout.trained.registry, rollout.name)


def test_out_of_a_rollout_the_champion_takes_all_back_and_stays_champion(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    third = rollout.trained.version()
    deploy.run(rollout.context("deploy", third, second, share=0.5, wait=False))
    found = back(rollout)
    assert (found.target.version, [version.version for version in found.leaving]) == (second, [third])
    assert rollout.state() == {
        "aliases": {"champion": second, "previous": first},
        "weights": {second: 1.0},
        "verdicts": {first: "promoted", second: "promoted", third: "rolled_back"},
    }


def test_a_champion_that_stays_champion_is_watched_on(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    third = rollout.trained.version()
    deploy.run(rollout.context("deploy", third, second, share=0.5, wait=False))
    back(rollout)
    assert names.TAG_RESTORED_AT not in rollout.trained.registry.get(rollout.name, second).tags
    back(rollout)
    assert names.TAG_RESTORED_AT in rollout.trained.registry.get(rollout.name, first).tags


def test_the_run_whose_challenger_was_taken_back_goes_no_further(rollout) -> None:
    first = promoted(rollout, None)
    second = rollout.trained.version()
    deploy.run(rollout.context("deploy", second, first, share=0.1, wait=False))
    back(rollout)
    state = rollout.state()
    for step, name in ((deploy, "deploy"), (promote, "promote")):
        outcome = step.run(rollout.context(name, second, first, share=0.5, wait=False))
        assert "is rolled_back: only a version that passed its gates is deployed" in outcome.summary
    rollback.run(rollout.context("rollback", second, first))
    assert rollout.state() == state


def test_a_challenger_judged_against_the_version_that_left_is_refused(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    third = rollout.trained.version()
    back(rollout)
    outcome = deploy.run(rollout.context("deploy", third, second, share=0.1, wait=False))
    assert "judged against 2, champion is 1 now" in outcome.summary


def test_a_version_may_be_named(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    third = promoted(rollout, second)
    back(rollout, first)
    assert rollout.state() == {
        "aliases": {"champion": first},
        "weights": {first: 1.0},
        "verdicts": {first: "promoted", second: "promoted", third: "rolled_back"},
    }


def test_what_is_so_already_is_not_done_again(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    found = plan(rollout.trained.registry, rollout.name, second)
    assert found.is_done
    assert str(found) == "version 2 is champion and has all of the traffic already"


def test_a_version_that_was_rolled_back_is_taken_only_by_force(rollout) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    back(rollout)
    with pytest.raises(RegistryError, match=r"version 2 of .* is rolled back") as raised:
        plan(rollout.trained.registry, rollout.name, second)
    assert raised.value.expected == "a version that was champion: 1"
    assert "--force" in raised.value.next
    assert back(rollout, second, force=True).target.version == second
    assert rollout.state() == {
        "aliases": {"champion": second},
        "weights": {second: 1.0},
        "verdicts": {first: "rolled_back", second: "promoted"},
    }


def test_a_version_that_never_was_champion_is_refused(rollout) -> None:
    promoted(rollout, None)
    rejected = rollout.trained.version("rejected")
    with pytest.raises(RegistryError, match="is rejected: it may be worse"):
        plan(rollout.trained.registry, rollout.name, rejected)


def test_a_version_that_does_not_exist_is_answered_with_those_that_do(rollout) -> None:
    promoted(rollout, None)
    with pytest.raises(RegistryError, match="has no version '7'") as raised:
        plan(rollout.trained.registry, rollout.name, "7")
    assert raised.value.expected == "one of 1"


def test_a_pipeline_without_a_champion_has_nothing_to_go_back_to(rollout) -> None:
    with pytest.raises(RegistryError, match="it never had a champion"):
        plan(rollout.trained.registry, rollout.name)


WRITES = ["nothing", "route", "reason", "verdict", "restored", "champion", "previous"]


@pytest.mark.parametrize("to", ["named", "by itself"])
@pytest.mark.parametrize("writes", range(7), ids=[f"after {write}" for write in WRITES])
def test_killed_between_two_writes_and_done_again_it_ends_the_same(rollout, killed_after, writes: int, to: str) -> None:
    first = promoted(rollout, None)
    second = promoted(rollout, first)
    third = promoted(rollout, second)
    with killed_after(writes):
        back(rollout)
    registry = rollout.trained.registry
    assert registry.route(rollout.name).weights == {second if writes else third: 1.0}
    if registry.champion(rollout.name).version == second:
        assert names.TAG_RESTORED_AT in registry.get(rollout.name, second).tags, "it must never look newly promoted"
    if to == "named":
        back(rollout, second)
    elif writes < 6:
        back(rollout)
    assert rollout.state() == {
        "aliases": {"champion": second, "previous": first},
        "weights": {second: 1.0},
        "verdicts": {first: "promoted", second: "promoted", third: "rolled_back"},
    }
