"""The pure parts, and the cache: assignment, entities, ids, and what is kept on disk."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from perennial_serving.cache import Cache, SavedRoute
from perennial_serving.entities import entity_key
from perennial_serving.ids import prediction_ids, version_of
from perennial_serving.model import version_mark
from perennial_spec.errors import RequestError
from perennial_spec.route import Route


@pytest.mark.parametrize(
    ("value", "key"),
    [(None, None), ("", None), ("a", "a"), (7, "7"), (7.0, "7"), (7.5, "7.5"), (10**30, "1" + "0" * 30)],
)
def test_an_entity_is_one_key_however_it_is_written(value: Any, key: str | None) -> None:
    assert entity_key(value, "here") == key


@pytest.mark.parametrize("value", [True, [], {}, float("nan"), float("inf"), "x" * 513])
def test_what_cannot_be_an_entity_is_refused(value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        entity_key(value, "column 'id', row 3")
    assert caught.value.where == "column 'id', row 3"


def test_prediction_ids_are_version_7_uuids_in_the_order_of_time() -> None:
    first = prediction_ids(500, 1)
    time.sleep(0.002)
    second = prediction_ids(1, 1)
    assert len(set(first)) == 500
    assert max(first) < second[0]
    for text in first:
        found = uuid.UUID(text)
        assert (found.version, found.variant, str(found)) == (7, uuid.RFC_4122, text)


def test_a_fetch_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = Cache(tmp_path, keep=2)

    def fails(uri: str, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.ensure("p", "1", "u", fails)
    assert not cache.bundle("p", "1", "u").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_bundle_is_fetched_once_and_old_ones_are_removed_but_not_those_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path, keep=2)
    fetched: list[str] = []

    def fetch(uri: str, folder: Path) -> None:
        fetched.append(uri)
        (folder / "x").write_text(uri)

    folders = [cache.ensure("p", str(n), f"u{n}", fetch) for n in range(5)]
    assert cache.ensure("p", "0", "u0", fetch) == folders[0]
    assert fetched == ["u0", "u1", "u2", "u3", "u4"]
    for age, folder in enumerate(folders):
        import os

        os.utime(folder, (1000 + age, 1000 + age))
    cache.trim("p", {folders[0]})
    assert [folder.exists() for folder in folders] == [True, False, False, True, True]


def test_saved_routes_come_back_and_a_broken_file_hides_no_other(tmp_path: Path) -> None:
    cache = Cache(tmp_path, keep=2)
    saved = SavedRoute(pipeline="a", route=Route(revision=3, weights={"1": 1.0}), champion="1", bundles={"1": "u"})
    cache.save(saved)
    (tmp_path / "routes" / "b.json").write_text("{")
    assert cache.saved() == [saved]


def test_a_prediction_id_tells_which_version_made_it() -> None:
    marks = {version: version_mark(version) for version in ("1", "2", "10")}
    for version, mark in marks.items():
        assert {version_of(id_, marks) for id_ in prediction_ids(200, mark)} == {version}
    assert version_of(str(uuid.uuid4()), marks) is None
    assert version_of(prediction_ids(1, version_mark("3"))[0], marks) is None
    assert version_of("no id", marks) is None


def test_of_several_processes_that_want_a_bundle_one_fetches_it(tmp_path: Path) -> None:
    """Threads stand for processes: the lock belongs to an open file."""
    fetched: list[str] = []

    def fetch(uri: str, folder: Path) -> None:
        time.sleep(0.05)
        fetched.append(uri)
        (folder / "file").write_text(uri)

    def load() -> None:
        cache = Cache(tmp_path, keep=2)
        with cache.alone("flights", "1"):
            assert cache.ensure("flights", "1", "u", fetch).joinpath("file").read_text() == "u"

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == ["u"]
