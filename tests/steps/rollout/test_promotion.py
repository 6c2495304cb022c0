"""A person makes a version champion, against a real registry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perennial_registry.promotion import plan, promote
from perennial_registry.restore import plan as plan_back
from perennial_registry.restore import restore
from perennial_spec import names
from perennial_spec.errors import RegistryError
from perennial_steps import analyse, deploy, rollback
from perennial_steps import promote as promote_step


def crown(rollout: Any, version: str | None = None, **options: Any) -> Any:
    registry = rollout.trained.registry
    found = plan(registry, rollout.name, version, **options)
    promote(registry, found, "ann", "seen enough")
    return found


def tags(rollout: Any, version: str) -> Any:
    return rollout.trained.registry.get(rollout.name, version).tags


def challenged(rollout: Any, share: float = 0.1) -> tuple[str, str]:
    """A champion, and a challenger that has a share of the traffic."""
    champion, challenger = rollout.trained.champion(), rollout.trained.version()
    deploy.run(rollout.context("deploy", challenger, champion, share=share, wait=False))
    return champion, challenger


DONE = {
    "aliases": {"champion": "2", "previous": "1"},
    "weights": {"2": 1.0},
    "verdicts": {"1": "promoted", "2": "promoted"},
}


def test_the_challenger_is_made_champion_in_the_midst_of_its_rollout(rollout) -> None:
    challenged(rollout)
    assert str(crown(rollout)) == "1: 90%, 2: 10% -> 2: 100%; champion: 1 -> 2"
    assert rollout.state() == DONE
    assert tags(rollout, "2")[names.TAG_VERDICT_REASON] == "ann: seen enough"
    assert tags(rollout, "2")[names.TAG_PROMOTED_AT].endswith("+00:00")
    assert rollout.trained.registry.route(rollout.name).changed_by == "ann"


def test_a_plan_alone_changes_nothing(rollout) -> None:
    challenged(rollout)
    before = rollout.state()
    plan(rollout.trained.registry, rollout.name)
    assert rollout.state() == before


def test_the_run_that_rolls_it_out_ends_without_taking_it_back(rollout) -> None:
    champion, challenger = challenged(rollout)
    crown(rollout)
    for step, name in ((deploy, "deploy"), (analyse, "analyse"), (promote_step, "promote"), (rollback, "rollback")):
        step.run(rollout.context(name, challenger, champion, share=0.5, wait=False))
    assert rollout.state() == DONE


def test_the_run_of_a_challenger_that_another_was_preferred_to_is_judged_against_that_one(rollout) -> None:
    champion, challenger = challenged(rollout)
    other = rollout.trained.version()
    crown(rollout, other)
    outcome = deploy.run(rollout.context("deploy", challenger, champion, share=0.5, wait=False))
    assert outcome.first == "evaluate"
    assert rollout.state()["aliases"] == {"champion": other, "previous": champion}
    assert rollout.state()["weights"] == {other: 1.0}


def test_without_a_challenger_it_is_the_newest_that_passed_since_the_champion(rollout) -> None:
    rollout.trained.version()
    champion = rollout.trained.champion()
    passed = rollout.trained.version()
    rollout.trained.version("rejected")
    assert crown(rollout).target.version == passed
    assert rollout.state()["aliases"] == {"champion": passed, "previous": champion}


def test_the_first_version_is_made_champion_without_a_previous(rollout) -> None:
    first = rollout.trained.version()
    assert str(crown(rollout)) == f"nobody -> {first}: 100%; champion: none -> {first}"
    assert rollout.state() == {"aliases": {"champion": "1"}, "weights": {"1": 1.0}, "verdicts": {"1": "promoted"}}


def test_what_is_so_already_is_not_done_again(rollout) -> None:
    challenged(rollout)
    crown(rollout)
    found = plan(rollout.trained.registry, rollout.name, "2")
    assert found.is_done
    assert str(found) == "version 2 is champion and has all of the traffic already"


def test_where_no_version_waits_that_is_said(rollout) -> None:
    rollout.trained.champion()
    rollout.trained.version("rejected")
    with pytest.raises(RegistryError, match="waits to be promoted: version 1 is champion, and none has passed"):
        plan(rollout.trained.registry, rollout.name)


def test_a_version_that_does_not_exist_is_answered_with_those_that_do(rollout) -> None:
    rollout.trained.champion()
    with pytest.raises(RegistryError, match="has no version '7'") as raised:
        plan(rollout.trained.registry, rollout.name, "7")
    assert raised.value.expected == "one of 1"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("rejected", "was rejected"),
        ("rolled_back", "was rolled back"),
        ("registered", "was not judged by its gates"),
    ],
)
def test_a_version_that_did_not_pass_is_promoted_only_by_force(rollout, verdict: str, words: str) -> None:
    rollout.trained.champion()
    poor = rollout.trained.version(verdict, **{names.TAG_VERDICT_REASON: "roc_auc 0.61"})
    before = rollout.state()
    with pytest.raises(RegistryError) as raised:
        plan(rollout.trained.registry, rollout.name, poor)
    assert f"{words} (roc_auc 0.61)" in raised.value.what
    assert raised.value.expected == "a version that passed its gates: 1"
    assert "--force" in raised.value.next
    assert rollout.state() == before
    crown(rollout, poor, force=True)
    assert rollout.state() == DONE
    assert tags(rollout, poor)[names.TAG_VERDICT_REASON] == "ann: seen enough"


@pytest.mark.parametrize("record", ["", "no json", json.dumps({"answer": "rejected"})])
def test_where_a_sign_off_is_required_it_must_be_there(rollout, record: str) -> None:
    champion = rollout.trained.champion()
    waits = rollout.trained.version("passed", **({names.TAG_SIGN_OFF: record} if record else {}))
    with pytest.raises(RegistryError, match=f"nobody has approved version {waits}") as raised:
        plan(rollout.trained.registry, rollout.name, signed=True)
    assert f"perennial approve {rollout.name}" in raised.value.next
    assert plan(rollout.trained.registry, rollout.name, signed=True, force=True).target.version == waits
    assert plan(rollout.trained.registry, rollout.name, champion, signed=True).is_done, "it was champion before"
    approved = json.dumps({"answer": "approved", "by": "mara"})
    rollout.trained.registry.tag(rollout.name, waits, names.TAG_SIGN_OFF, approved)
    assert crown(rollout, signed=True).target.version == waits


def test_a_champion_of_before_is_new_again_and_the_way_back_leads_to_the_one_it_replaces(rollout) -> None:
    challenged(rollout)
    crown(rollout)
    registry = rollout.trained.registry
    restore(registry, plan_back(registry, rollout.name), "ann", "worse")
    crown(rollout, "2", force=True)
    crown(rollout, "1")
    found = tags(rollout, "1")
    assert found[names.TAG_PROMOTED_AT] > found[names.TAG_RESTORED_AT], "it is watched as any new champion"
    assert plan_back(registry, rollout.name).target.version == "2"


# From 10%, so that the route is one of the writes: route, previous, champion, reason, promoted_at, verdict, challenger removed.
@pytest.mark.parametrize("writes", range(7))
def test_killed_between_two_writes_and_done_again_it_ends_the_same(rollout, killed_after, writes: int) -> None:
    challenged(rollout)
    with killed_after(writes):
        crown(rollout)
    between = rollout.state()
    assert between != DONE
    assert sum(between["weights"].values()) == 1
    crown(rollout, "2")
    assert rollout.state() == DONE
    assert names.TAG_PROMOTED_AT in tags(rollout, "2")


# route, reason, promoted_at, previous, champion.
@pytest.mark.parametrize("writes", range(5))
def test_a_champion_of_before_is_new_again_after_a_kill_too(rollout, killed_after, writes: int) -> None:
    challenged(rollout)
    crown(rollout)
    registry = rollout.trained.registry
    registry.tag(rollout.name, "1", names.TAG_PROMOTED_AT, "2013-01-01T00:00:00+00:00")
    with killed_after(writes):
        crown(rollout, "1")
    crown(rollout, "1")
    assert tags(rollout, "1")[names.TAG_PROMOTED_AT] > "2013-01-02"
    assert rollout.state()["aliases"] == {"champion": "1", "previous": "2"}


def test_another_change_of_the_route_meanwhile_is_reported_and_not_overwritten(rollout) -> None:
    challenged(rollout)
    registry = rollout.trained.registry
    found = plan(registry, rollout.name)
    registry.write_route(rollout.name, registry.route(rollout.name).moved_to({"1": 1.0}, "bob"))
    with pytest.raises(RegistryError, match="was changed by bob"):
        promote(registry, found, "ann")
    assert rollout.state()["weights"] == {"1": 1.0}
