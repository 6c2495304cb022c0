"""The alert that fires always: it is noted, fills no ledger, and is missed when it stops."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

LAST = "perennial_watchdog_last_received_timestamp_seconds"


@pytest.fixture
def beat(make_alert: Any) -> Any:
    """The alert as Alertmanager sends it."""

    def make(status: str = "firing") -> dict[str, Any]:
        alert: dict[str, Any] = make_alert(name="PerennialWatchdog", action="none", status=status)
        del alert["labels"]["pipeline"]
        return alert

    return make


async def test_it_is_noted_and_fills_no_ledger(world: Any, beat: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        assert (await client.metrics())[LAST] == 0
        for _ in range(3):
            answer = await client.alert(beat())
            assert (answer.status_code, answer.json()) == (200, {"decisions": [], "new": 0})
        first = (await client.metrics())[LAST]
        answer = await client.alert(beat(), make_alert())
        assert len(answer.json()["decisions"]) == 1, "what comes with it is written as ever"
        metrics = await client.metrics()
    assert metrics[LAST] > first > 0
    assert world.database.run("SELECT count(*) FROM perennial_decisions") == [(1,)]
    assert not any(value for name, value in metrics.items() if 'decision="duplicate"' in name and "_total" in name)


async def test_its_end_is_no_sign_of_life(world: Any, beat: Any) -> None:
    async with world.controller() as client:
        assert (await client.alert(beat("resolved"))).status_code == 200
        assert (await client.metrics())[LAST] == 0


async def test_it_is_not_taken_while_the_ledger_is_away_so_that_it_is_sent_again(world: Any, beat: Any) -> None:
    async with world.controller() as client:
        with world.database.away():
            assert (await client.alert(beat())).status_code == 503


async def test_it_is_missed_when_it_stops_and_the_controller_stays_in_service(
    world: Any, beat: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.controller(watchdog_after=timedelta(seconds=1)) as client:

        async def ready() -> str:
            answer = await client.http.get("/readyz")
            assert answer.status_code == 200
            return str(answer.text)

        async def missed() -> str | None:
            text = await ready()
            return text if "warning: " in text else None

        assert await ready() == "ok\n"
        assert "PerennialWatchdog has not come yet" in await client.until(missed)
        await client.alert(beat())

        async def back() -> bool:
            return await ready() == "ok\n"

        await client.until(back)
        assert "has not come since 20" in await client.until(missed)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2, "said once each time"


async def test_a_restart_gives_it_time_and_remembers_when_it_came(world: Any, beat: Any) -> None:
    async with world.controller() as client:
        await client.alert(beat())
        before = (await client.metrics())[LAST]
    world.database.run("UPDATE perennial_marks SET at = at - interval '1 day'")
    async with world.controller() as client:
        assert (await client.metrics())[LAST] == pytest.approx(before - 86400)
        assert (await client.http.get("/readyz")).text == "ok\n"


async def test_another_controller_knows_that_it_came(world: Any, beat: Any) -> None:
    async with world.controller() as one, world.controller() as two:
        await one.alert(beat())
        assert (await one.metrics())[LAST] == (await two.metrics())[LAST] > 0
