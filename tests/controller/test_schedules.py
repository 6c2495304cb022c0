"""Ticks of `retraining.schedule`: each is an event that is written before a run is started, and only the newest is made up for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from perennial_controller.marks import schedule_mark
from perennial_controller.schedules import due, last_tick, next_tick
from perennial_spec.load import Pipeline

NOW = datetime(2026, 6, 3, 12, 30, 20, tzinfo=UTC)  # a Wednesday
BY_ANN = {"reason": "a look at it", "actor": "ann"}


def scheduled(schedule: str | None) -> Pipeline:
    spec = SimpleNamespace(retraining=SimpleNamespace(schedule=schedule))
    return cast("Pipeline", SimpleNamespace(name="flights", spec=spec))


def ticks(schedule: str | None, first_seen: timedelta | None, now: datetime = NOW) -> list[str]:
    marks = {} if first_seen is None else {schedule_mark("flights", schedule or ""): NOW - first_seen}
    return [event.payload["tick"] for event in due([scheduled(schedule)], marks, now)]


@pytest.mark.parametrize(
    ("schedule", "first_seen", "expected"),
    [
        ("0 6 * * *", timedelta(days=3), ["2026-06-03T06:00:00+00:00"]),
        ("30 12 * * *", timedelta(days=3), ["2026-06-03T12:30:00+00:00"]),
        ("@weekly", timedelta(days=30), ["2026-05-31T00:00:00+00:00"]),
        ("@weekly", timedelta(days=2), []),
        ("@daily", None, []),
        (None, timedelta(days=30), []),
        ("99 99 * * *", timedelta(days=30), []),
    ],
    ids=["the newest of three", "this minute", "weekly", "before it was seen", "not seen yet", "none", "no time"],
)
def test_the_newest_tick_since_the_schedule_was_first_seen(
    schedule: str | None, first_seen: timedelta | None, expected: list[str]
) -> None:
    assert ticks(schedule, first_seen) == expected


def test_a_tick_is_the_same_event_until_the_next() -> None:
    marks = {schedule_mark("flights", "@daily"): NOW - timedelta(days=9)}
    keys = {
        event.dedupe_key
        for hour in range(12)
        for event in due([scheduled("@daily")], marks, NOW - timedelta(hours=hour))
    }
    assert keys == {"schedule:flights:2026-06-03T00:00:00+00:00"}


def test_ticks_before_and_after_a_moment() -> None:
    assert last_tick("@hourly", NOW) == NOW.replace(minute=0, second=0)
    assert next_tick("@hourly", NOW) == NOW.replace(hour=13, minute=0, second=0)


async def overdue(world: Any, retraining: str = "{schedule: '@hourly', cooldown: 0s}") -> None:
    """A schedule that was first seen long ago, by a controller that is gone."""
    world.pipeline("flights", retraining)
    async with world.controller() as client:
        await client.until(lambda: world.database.run("SELECT 1 FROM perennial_marks WHERE name LIKE 'schedule:%'"))
        assert not world.airflow.posts, "a schedule that is new has missed nothing"
    world.database.run("UPDATE perennial_marks SET at = at - interval '9 hours' WHERE name LIKE 'schedule:%'")


async def test_of_the_ticks_that_were_missed_one_starts_a_run_once_however_often_the_controller_starts(
    world: Any,
) -> None:
    await overdue(world)
    for _ in range(2):
        async with world.controller() as client:
            (run,) = await client.until(lambda: world.airflow.of("flights"))
            (row,) = await client.decisions()
    assert (row["kind"], row["decision"], row["duplicates"]) == ("schedule", "accepted", 0)
    assert run["conf"]["reason"]["kind"] == "schedule"
    assert run["conf"]["reason"]["summary"] == row["summary"]
    assert row["summary"].startswith("scheduled for ")


async def test_a_pause_holds_the_schedule_and_the_newest_tick_starts_a_run_when_it_ends(world: Any) -> None:
    world.pipeline("flights", "{schedule: '@yearly', cooldown: 0s}")
    async with world.controller(reload_every=3600) as client:
        await client.http.post("/api/v1/pipelines/flights/pause", json=BY_ANN)
        # What a controller would have written an hour ago, and again now.
        old = "INSERT INTO perennial_decisions (received_at, last_seen_at, kind, pipeline, dedupe_key, summary, payload, decision, reason) "
        for number in (1, 2):
            world.database.run(
                f"{old} VALUES (now(), now(), 'schedule', 'flights', 'tick-{number}', '-', '{{}}', 'received', '-')"
            )

        async def kinds() -> list[str]:
            return [row["decision"] for row in await client.decisions() if row["kind"] == "schedule"]

        async def held() -> bool:
            return await kinds() == ["paused", "superseded"]

        await client.until(held)
        assert not world.airflow.of("flights")
        await client.http.post("/api/v1/pipelines/flights/resume", json=BY_ANN)
        (run,) = await client.until(lambda: world.airflow.of("flights"))
        assert await kinds() == ["accepted", "superseded"]
    assert run["conf"]["reason"]["kind"] == "schedule"


async def test_a_tick_while_a_run_is_active_is_merged_into_it(world: Any) -> None:
    await overdue(world)
    world.airflow.add("flights", "manual__1", run_type="manual")
    async with world.controller(reload_every=0.5) as client:

        async def merged() -> Any:
            rows = await client.decisions()
            return next((row for row in rows if row["decision"] == "merged"), None)

        row = await client.until(merged)
    assert (row["kind"], row["run_id"]) == ("schedule", "manual__1")
