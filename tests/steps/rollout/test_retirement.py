"""Versions whose time is over are archived, and their data goes with them: a real registry, and a real Delta table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial_registry import promotion, restore
from perennial_registry.retirement import archive, is_archived, plan
from perennial_spec import names
from perennial_spec.errors import BatchError, RegistryError
from perennial_spec.retraining import Lifetime
from perennial_steps import retire, table

LIFETIME = Lifetime(retire_after=timedelta(days=365), unpromoted_after=timedelta(days=30))


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def promoted(trained: Any, **tags: str) -> str:
    """A version that was champion once."""
    return str(trained.version("promoted", **{names.TAG_PROMOTED_AT: "2026-01-01T00:00:00+00:00"}, **tags))


def planned(trained: Any, days: float) -> dict[str, tuple[bool, str]]:
    found = plan(trained.registry, trained.name, LIFETIME, later(days))
    return {each.version.version: (each.archive, each.why) for each in found.judged}


def put_away(trained: Any, days: float) -> None:
    archive(trained.registry, plan(trained.registry, trained.name, LIFETIME, later(days)), later(days))


def test_what_never_became_champion_goes_before_what_was(trained) -> None:
    old, rejected, champion = promoted(trained), trained.version("rejected"), trained.champion()
    assert planned(trained, 29)[rejected][0] is False
    assert planned(trained, 31) == {
        old: (False, f"was champion, 31d old: kept until {later(365):%Y-%m-%d}"),
        rejected: (True, "never promoted, and 31d old"),
        champion: (False, "champion"),
    }
    assert planned(trained, 366)[old] == (True, "was champion, and 366d old")


def test_what_serves_or_may_serve_next_or_is_gone_back_to_stays_however_old(trained) -> None:
    previous, shadow, challenger = promoted(trained), trained.version(), trained.version()
    champion = trained.champion()
    trained.registry.set_alias(trained.name, names.ALIAS_PREVIOUS, previous)
    trained.registry.set_alias(trained.name, names.ALIAS_CHALLENGER, challenger)
    route = trained.registry.route(trained.name)
    wanted = route.model_copy(update={"revision": route.revision + 1, "shadow": (shadow,)})
    trained.registry.write_route(trained.name, wanted)
    assert planned(trained, 10_000) == {
        previous: (False, "previous"),
        shadow: (False, "in the route"),
        challenger: (False, "challenger"),
        champion: (False, "champion"),
    }


def test_an_archived_version_stays_in_the_registry_with_the_reason_and_is_not_archived_twice(trained) -> None:
    rejected, _ = trained.version("rejected"), trained.champion()
    put_away(trained, 31)
    version = trained.registry.get(trained.name, rejected)
    assert (version.tags[names.TAG_ARCHIVED_REASON], version.tags[names.TAG_VERDICT]) == (
        "never promoted, and 31d old",
        "rejected",
    )
    before = version.tags[names.TAG_ARCHIVED_AT]
    put_away(trained, 60)
    assert trained.registry.get(trained.name, rejected).tags[names.TAG_ARCHIVED_AT] == before
    assert planned(trained, 60)[rejected] == (False, "archived already: never promoted, and 31d old")


def test_an_archived_version_takes_traffic_by_force_only_and_is_then_archived_no_longer(trained) -> None:
    waiting, old, champion = trained.version("passed"), promoted(trained), trained.champion()
    put_away(trained, 400)
    registry, name = trained.registry, trained.name
    with pytest.raises(RegistryError, match=f"version {waiting} of {name} is archived .*never promoted, and 400d old"):
        promotion.plan(registry, name, waiting)
    with pytest.raises(RegistryError, match=f"version {old} of {name} is archived"):
        restore.plan(registry, name, old)
    with pytest.raises(RegistryError, match="has no version to go back to"):
        restore.plan(registry, name)
    promotion.promote(registry, promotion.plan(registry, name, waiting, force=True), "ann")
    assert not is_archived(registry.get(name, waiting))
    restore.restore(registry, restore.plan(registry, name, old, force=True), "ann", "as it was")
    assert not is_archived(registry.get(name, old))
    assert registry.champion(name).version == old
    assert champion in planned(trained, 0)


def test_a_version_that_waits_to_be_promoted_is_not_found_once_it_is_archived(trained) -> None:
    trained.champion()
    waiting = trained.version("passed")
    assert promotion.plan(trained.registry, trained.name).target.version == waiting
    put_away(trained, 31)
    with pytest.raises(RegistryError, match="waits to be promoted"):
        promotion.plan(trained.registry, trained.name)


def land(uri: str, versions: int) -> None:
    """Each version replaces all rows of the one before."""
    for number in range(versions):
        write_deltalake(uri, pa.table({"x": pa.array([number])}), mode="overwrite")


def rows(uri: str, version: int) -> list[int]:
    return list(table.read_window(uri, version, "x")["x"].to_pylist())


def test_data_of_versions_that_are_not_archived_is_kept_and_the_rest_deleted_in_time(room, trained) -> None:
    uri = str(room.root / "data")
    land(uri, 4)
    held = {names.TAG_DATA_URI: uri}
    trained.version("rejected", **held, **{names.TAG_DATA_VERSION: "0"})
    promoted(trained, **held, **{names.TAG_DATA_VERSION: "1"})
    promoted(trained, **{names.TAG_DATA_URI: "elsewhere", names.TAG_DATA_VERSION: "2"})
    put_away(trained, 31)
    pinned = plan(trained.registry, trained.name, LIFETIME, later(31)).pinned(uri)
    assert pinned == {1}
    assert table.delete_unneeded(uri, sorted(pinned), timedelta(days=7)) == 0  # they left the table a moment ago
    assert table.delete_unneeded(uri, sorted(pinned), timedelta(0)) == 2
    assert (rows(uri, 1), rows(uri, 3)) == ([1], [3])
    assert DeltaTable(uri).version() >= 3
    with pytest.raises(BatchError, match="the data of version 0 is deleted"):
        rows(uri, 0)


def test_the_step_archives_by_the_spec_and_deletes_nothing_unless_it_says_so(rollout) -> None:
    trained = rollout.trained
    rejected, champion = trained.version("rejected"), trained.champion()
    context = rollout.context("retire", None, None)
    land(context.platform.table(rollout.name, "data"), 2)
    assert retire.run(context).summary == "archived: no version; 2 stay"
    rollout.room.pipeline(rollout.name, more="lifetime: {unpromoted_after: 1ms}\n")
    outcome = retire.run(rollout.context("retire", None, None))
    assert outcome.outputs == {"archived": [rejected], "kept": 1, "deleted_files": 0, "pinned": []}
    assert outcome.summary == f"archived: {rejected}; 1 stay"
    assert rows(context.platform.table(rollout.name, "data"), 0) == [0]
    rollout.room.pipeline(rollout.name, more="lifetime: {unpromoted_after: 1ms, delete_data_after: 7d}\n")
    assert retire.run(rollout.context("retire", None, None)).outputs["archived"] == []
    assert rows(context.platform.table(rollout.name, "data"), 0) == [0]
    assert trained.registry.champion(rollout.name).version == champion


def test_a_pipeline_without_versions_or_data_has_nothing_to_retire(rollout) -> None:
    rollout.room.pipeline(rollout.name, more="lifetime: {delete_data_after: 7d}\n")
    outcome = retire.run(rollout.context("retire", None, None))
    assert outcome.outputs == {"archived": [], "kept": 0, "deleted_files": 0, "pinned": []}


def test_killed_between_any_two_writes_it_completes(trained, killed_after) -> None:
    waiting = [trained.version("rejected") for _ in range(3)]
    for writes in range(3):
        with killed_after(writes):
            put_away(trained, 31)
    put_away(trained, 31)
    assert all(is_archived(trained.registry.get(trained.name, version)) for version in waiting)
