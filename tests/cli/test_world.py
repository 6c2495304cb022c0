"""The demonstration's world, made of the real flights."""

from __future__ import annotations

import duckdb
import pytest

from perennial_cli.demo.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    world = World(folder / "year", folder / "lake")
    world.prepare()
    return world


def test_the_year_has_every_flight_of_new_york(world: World) -> None:
    count = duckdb.sql(f"SELECT count(*) FROM '{world.year}/flights/*.parquet'").fetchall()
    assert count == [(336_776,)]


def test_a_month_arrives_once_and_only_when_it_is_delivered(world: World) -> None:
    assert len(world.deliver(range(1, 3))) == 5  # flights and weather of two months, and the planes
    assert world.deliver(range(1, 3)) == []
    last = duckdb.sql(f"SELECT max(time_hour)::VARCHAR FROM '{world.lake}/flights/*.parquet'").fetchall()
    assert last == [("2013-02-28 23:00:00",)]


def test_a_file_that_is_arriving_is_not_seen_by_the_sources(world: World) -> None:
    world.deliver(range(3, 4))
    assert list((world.lake / "flights").glob("*.partial")) == []
