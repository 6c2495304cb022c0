"""A new champion that turns out to be worse is rolled back by the controller itself, in a real registry."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from perennial_controller import champions
from perennial_controller.ledger import Ledger
from perennial_controller.registry import Registry as AsyncRegistry
from perennial_controller.rollbacks import Rollbacks
from perennial_controller.specs import Specs
from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.errors import RegistryError


@dataclass
class Served:
    """A pipeline of the test's own, and its versions in the registry."""

    name: str
    registry: Registry

    def promote(self, ago: timedelta = timedelta(hours=1)) -> str:
        """A new champion, as the steps leave one that was promoted so long ago."""
        run = self.registry.rest.post("runs/create", experiment_id="0")["run"]["info"]
        at = (datetime.now(UTC) - ago).isoformat()
        tags = {names.TAG_VERDICT: "promoted", names.TAG_PROMOTED_AT: at}
        key = uuid.uuid4().hex
        made = self.registry.register(
            self.name, run_id=run["run_id"], source=run["artifact_uri"], run_key=key, tags=tags
        )
        if before := self.registry.champion(self.name):
            self.registry.set_alias(self.name, names.ALIAS_PREVIOUS, before.version)
        self.registry.set_alias(self.name, names.ALIAS_CHAMPION, made.version)
        self.registry.write_route(self.name, self.registry.route(self.name).moved_to({made.version: 1.0}, key))
        return made.version

    def state(self) -> dict[str, Any]:
        route = self.registry.route(self.name)
        versions = self.registry.versions(self.name)
        return {
            "aliases": {alias: version.version for version in versions for alias in version.aliases},
            "live": route.live,
            "revision": route.revision,
            "verdicts": [version.tags[names.TAG_VERDICT] for version in versions],
        }


@pytest.fixture
def served(mlflow_url: str) -> Iterator[Served]:
    with Registry(mlflow_url) as registry:
        yield Served(f"flights-{uuid.uuid4().hex[:8]}", registry)


@pytest.fixture
def watched(world: Any, served: Served, mlflow_url: str) -> Any:
    """The world with the real registry, and the pipeline."""
    world.pipeline(served.name)
    return replace(world, registry=type("RealRegistry", (), {"url": mlflow_url})())


def regression(make_alert: Any, served: Served, version: str, **changes: Any) -> dict[str, Any]:
    given = {"name": names.ALERT_REGRESSION, "action": "rollback", "version": version, "what": "errors", **changes}
    return dict(make_alert(served.name, **given))


async def finished(client: Any, id: int) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        row = await client.decision(id)
        return row if row["outcome"] else None

    return dict(await client.until(over))


async def test_a_regression_of_a_new_champion_takes_the_traffic_back_once(watched, served, make_alert) -> None:
    first, second = served.promote(timedelta(days=9)), served.promote()
    async with watched.controller() as client:
        alert = regression(make_alert, served, second)
        (id,) = (await client.alert(alert)).json()["decisions"]
        row = await finished(client, id)
        await client.alert(alert)
        (again,) = (await client.alert({**alert, "fingerprint": "f2"})).json()["decisions"]
        refused = await client.decided(again, "not_allowed")
        metrics = await client.metrics()
    assert row["decision"] == "rolling_back"
    assert f"watched for 3d (deployment.watch), and is worse: back to version {first}" in row["reason"]
    assert (row["outcome"], row["verdict"], row["model_version"]) == ("success", "rolled_back", first)
    assert served.state() == {
        "aliases": {"champion": first},
        "live": (first,),
        "revision": 3,
        "verdicts": ["promoted", "rolled_back"],
    }
    tags = served.registry.get(served.name, second).tags
    assert tags[names.TAG_VERDICT_REASON] == f"perennial: temp has drifted: PSI 2.10 > 0.20 (decision {id})"
    assert refused["reason"].endswith(f"it is about version {second}, and version {first} is champion")
    assert metrics[f'perennial_rollbacks_total{{pipeline="{served.name}",result="done"}}'] == 1
    assert watched.airflow.posts == [], "nothing is trained"


async def test_it_goes_one_step_back_and_no_further(watched, served, make_alert) -> None:
    served.promote(timedelta(days=2))
    second, third = served.promote(timedelta(days=1)), served.promote()
    async with watched.controller() as client:
        (id,) = (await client.alert(regression(make_alert, served, third))).json()["decisions"]
        await finished(client, id)
        (again,) = (await client.alert(regression(make_alert, served, second, fingerprint="f2"))).json()["decisions"]
        row = await client.decided(again, "not_allowed")
    assert row["reason"].endswith(
        f"the traffic was taken back to version {second} before, and is taken back one step only"
    )
    assert served.state()["live"] == (second,)


async def test_a_controller_killed_after_the_registry_was_written_does_no_more_the_second_time(
    watched, served, make_alert, monkeypatch
) -> None:
    served.promote(timedelta(days=4))
    first, second = served.promote(timedelta(days=3)), served.promote()
    write = Ledger.rolled_back

    async def die(*_: Any) -> None:
        raise OSError("killed")

    monkeypatch.setattr(Ledger, "rolled_back", die)
    async with watched.controller() as client:
        (id,) = (await client.alert(regression(make_alert, served, second))).json()["decisions"]
        await client.until(lambda: served.state()["aliases"]["champion"] == first)
        await client.until(lambda: served.state()["aliases"].get("previous") not in {None, first})
    monkeypatch.setattr(Ledger, "rolled_back", write)
    state = served.state()
    async with watched.controller() as client:
        row = await finished(client, id)
    assert row["outcome"] == "success"
    assert served.state() == state, "neither further back, nor another revision"


async def test_a_registry_that_is_away_is_asked_again_until_the_traffic_is_back(
    watched, served, make_alert, monkeypatch
) -> None:
    first, second = served.promote(timedelta(days=9)), served.promote()
    work, away = Rollbacks.take_back, iter([True, True])

    def take_back(self: Rollbacks, entry: Any) -> str:
        if next(away, False):
            raise RegistryError("the registry does not answer")
        return work(self, entry)

    monkeypatch.setattr(Rollbacks, "take_back", take_back)
    async with watched.controller() as client:
        (id,) = (await client.alert(regression(make_alert, served, second))).json()["decisions"]
        row = await finished(client, id)
    assert (row["attempts"], row["outcome"]) == (3, "success")
    assert served.state()["live"] == (first,)


async def test_a_promotion_that_came_between_is_left_alone(watched, served, make_alert, monkeypatch) -> None:
    served.promote(timedelta(days=9))
    second, work = served.promote(), Rollbacks.take_back
    third = ""

    def take_back(self: Rollbacks, entry: Any) -> str:
        nonlocal third
        third = third or served.promote(timedelta(0))
        return work(self, entry)

    monkeypatch.setattr(Rollbacks, "take_back", take_back)
    async with watched.controller() as client:
        (id,) = (await client.alert(regression(make_alert, served, second))).json()["decisions"]
        row = await finished(client, id)
    assert (row["delivery"], row["outcome"]) == ("failed", "refused")
    assert row["last_error"] == f"champion is version {third} now, and the alert is about version {second}"
    assert served.state()["live"] == (third,)


async def test_prometheus_hears_which_champions_are_watched_and_until_when(watched, served) -> None:
    series = "perennial_watch_until_timestamp_seconds"

    async def seen(client: Any) -> dict[str, float]:
        return {key: value for key, value in (await client.metrics()).items() if key.startswith(series)}

    served.promote(timedelta(days=9))
    async with watched.controller(champions_every=0.1) as client:
        assert await seen(client) == {}, "nothing to go back to"
        second = served.promote()
        found = await client.until(lambda: seen(client))
    until = datetime.now(UTC) + timedelta(hours=71)
    assert found == {
        f'{series}{{pipeline="{served.name}",version="{second}"}}': pytest.approx(until.timestamp(), abs=60)
    }


async def test_a_registry_that_says_the_same_is_asked_no_more_than_its_aliases(
    watched, served, mlflow_url: str, monkeypatch
) -> None:
    asked: list[str] = []
    work = champions.champion_facts

    async def counted(registry: Any, pipeline: str) -> Any:
        asked.append(pipeline)
        return await work(registry, pipeline)

    monkeypatch.setattr(champions, "champion_facts", counted)
    specs = Specs(watched.pipelines)
    specs.refresh()
    served.promote(timedelta(days=9))
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        looking = champions.Champions(specs, AsyncRegistry(mlflow_url, http), lambda: datetime.now(UTC))
        await looking.refresh()
        first = [name for name in asked if name == served.name]
        await looking.refresh()
        assert [name for name in asked if name == served.name] == first == [served.name]
        served.promote()
        await looking.refresh()
    assert asked.count(served.name) == 2
