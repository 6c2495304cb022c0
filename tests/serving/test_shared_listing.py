"""One worker asks the registry, all see the same, and another asks when that one is gone."""

from __future__ import annotations

import pickle
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from perennial_serving.settings import Settings
from perennial_serving.shared_listing import Said, SharedRegistry
from perennial_spec.errors import RegistryError

FAST = Settings(poll_seconds=0.01, poll_jitter=0, registry_timeout=5)
SLOW = Settings(poll_seconds=600)


def route_of(registry: SharedRegistry, name: str) -> Any:
    return next((listing.route for listing in registry.routed() if listing.name == name), None)


def answers(registry: SharedRegistry) -> bool:
    with suppress(RegistryError):
        registry.routed()
        return True
    return False


def test_the_first_asks_and_the_others_see_the_same(pipeline: Any, mlflow: Any, tmp_path: Path) -> None:
    asker, other = (SharedRegistry(mlflow.url, FAST, tmp_path) for _ in range(2))
    try:
        route = pipeline.route({"1": 1.0})
        assert route_of(asker, pipeline.name) == route_of(other, pipeline.name) == route
        route = pipeline.route({"1": 0.5, "2": 0.5})
        assert route_of(other, pipeline.name) != route  # it does not ask
        end = time.monotonic() + 30
        while route_of(asker, pipeline.name) != route:  # it waits ten times as long as the answer took
            assert time.monotonic() < end
            time.sleep(0.01)
        assert asker.routed() == other.routed()
        assert route_of(other, pipeline.name) == route
    finally:
        asker.close()
        other.close()


def test_it_asks_at_its_pace_however_often_it_is_looked_at(pipeline: Any, mlflow: Any, tmp_path: Path) -> None:
    registry = SharedRegistry(mlflow.url, SLOW, tmp_path)
    pipeline.route({"1": 1.0})
    before = route_of(registry, pipeline.name)
    pipeline.route({"2": 1.0})
    assert route_of(registry, pipeline.name) == before
    registry.close()


def test_that_the_registry_is_away_is_seen_by_all(cable: Any, tmp_path: Path) -> None:
    asker, other = (SharedRegistry(cable.url, FAST, tmp_path) for _ in range(2))
    cable.cut()
    messages = []
    for registry in (asker, other):
        with pytest.raises(RegistryError, match="the registry does not answer as it should") as error:
            registry.routed()
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    cable.mend()
    end = time.monotonic() + 30
    while not answers(asker):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert other.routed() == asker.routed()
    asker.close()
    other.close()


def test_when_the_asker_ends_another_asks(pipeline: Any, mlflow: Any, tmp_path: Path) -> None:
    asker, other = (SharedRegistry(mlflow.url, SLOW, tmp_path) for _ in range(2))
    pipeline.route({"1": 1.0})
    before = route_of(asker, pipeline.name)
    assert route_of(other, pipeline.name) == before
    route = pipeline.route({"2": 1.0})
    asker.close()
    assert route_of(other, pipeline.name) == route
    other.close()


def test_an_asker_that_is_silent_is_said_to_be(mlflow: Any, tmp_path: Path) -> None:
    asker, other = (SharedRegistry(mlflow.url, FAST, tmp_path) for _ in range(2))
    assert asker._may_ask()
    with pytest.raises(RegistryError, match="has not said anything yet"):
        other.routed()
    old = Said(moment=time.monotonic() - 60)
    (tmp_path / "registry").write_bytes(pickle.dumps(old))
    with pytest.raises(RegistryError, match="has said nothing for 60 s"):
        other.routed()
    asker.close()
    other.close()
