"""How the loop itself is doing, as metrics: from the ledger, so that a restart changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.responses import JSONResponse

from perennial_controller.cases import HELD, DecisionKind, Pause, Run
from perennial_controller.events import ALL_PIPELINES
from perennial_controller.figures import Figures, Runs, budget_left, compute_left, run_due
from perennial_spec.load import load_pipeline

ASKED = {"reason": "why not", "actor": "ada"}
OF = '{pipeline="flights"}'


def ours(metrics: dict[str, float]) -> dict[str, float]:
    """What the ledger says of the runs."""
    return {
        name: value
        for name, value in metrics.items()
        if name.startswith(
            ("perennial_run", "perennial_retrainings_s", "perennial_budget", "perennial_controller_held")
        )
        and "limit" not in name
    }


async def run(client: Any, world: Any, ends: str, verdict: str | None = None, *, alert: Any = None) -> dict[str, Any]:
    """One training run from beginning to end; asked for by a person, or by an alert."""
    if alert is None:
        id = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()["id"]
    else:
        (id,) = (await client.alert(alert)).json()["decisions"]
    row = await client.decided(id, "accepted")
    if alert is not None:
        await client.alert({**alert, "status": "resolved"})
    await client.until(lambda: any(key[1] == row["run_id"] for key in world.airflow.runs))
    if verdict:
        world.registry.register("flights", None, run_key=row["run_id"], verdict=verdict)
    world.airflow.finish(row["run_id"], ends)

    async def ended() -> dict[str, Any] | None:
        found = await client.decision(id)
        return found if found["outcome"] else None

    return dict(await client.until(ended))


async def test_a_pipeline_that_never_ran_has_zeros_and_no_moments(world: Any) -> None:
    async with world.controller() as client:
        metrics = ours(await client.metrics())
    assert metrics.pop(f"perennial_budget_runs_left{OF}") == 1000
    assert set(metrics.values()) == {0.0}
    assert sum(name.startswith("perennial_runs_total") for name in metrics) == 6
    assert sum(name.startswith("perennial_controller_held_events") for name in metrics) == 8
    assert not any("timestamp" in name for name in metrics)


async def test_what_became_of_the_runs_is_told_and_a_restart_changes_nothing(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        await run(client, world, "success", "promoted")
        for number, (ends, verdict) in enumerate([("failed", "rejected"), ("failed", "rolled_back"), ("failed", None)]):
            world.validated("flights", number + 1)
            await run(client, world, ends, verdict, alert=make_alert(fingerprint=f"f{number}"))
        judged = [row for row in await client.decisions() if row["verdict"]]
        last_good = await run(client, world, "failed", "rejected")
        await run(client, world, "failed")
        await run(client, world, "failed", "registered")
        before = ours(await client.metrics())
    async with world.controller() as client:
        after = ours(await client.metrics())
    assert [row["verdict"] for row in judged] == ["rolled_back", "rejected", "promoted"]
    results = {name.split('outcome="')[1].split('"')[0]: n for name, n in before.items() if "runs_total" in name}
    assert results == {"promoted": 1, "rejected": 2, "rolled_back": 1, "failed": 3, "refused": 0, "lost": 0}
    assert before[f"perennial_retrainings_since_promotion{OF}"] == 3, "those by alerts"
    assert before[f"perennial_run_failures_in_a_row{OF}"] == 2, "a challenger that was rejected is no failure"
    ended = datetime.fromisoformat(last_good["finished_at"]).timestamp()
    assert before[f"perennial_run_last_success_timestamp_seconds{OF}"] == pytest.approx(ended)
    assert before[f"perennial_budget_runs_left{OF}"] == 1000 - 7
    assert after == before


async def test_a_promotion_ends_the_count_of_retrainings_in_vain(world: Any, make_alert: Any) -> None:
    world.validated("flights", 1)
    async with world.controller() as client:
        await run(client, world, "failed", "rejected", alert=make_alert())
        assert (await client.metrics())[f"perennial_retrainings_since_promotion{OF}"] == 1
        world.validated("flights", 2)
        await run(client, world, "success", "promoted", alert=make_alert(fingerprint="f2"))
        metrics = await client.metrics()
    assert metrics[f"perennial_retrainings_since_promotion{OF}"] == 0
    assert metrics[f"perennial_run_failures_in_a_row{OF}"] == 0


async def test_a_run_is_active_from_its_delivery_to_its_end(world: Any) -> None:
    active, undelivered = (
        f"perennial_run_active_since_timestamp_seconds{OF}",
        f"perennial_run_undelivered_since_timestamp_seconds{OF}",
    )
    world.airflow.misbehave = lambda: JSONResponse({"detail": "boom"}, 500)
    async with world.controller() as client:
        row = (await client.http.post("/api/v1/pipelines/flights/runs", json=ASKED)).json()
        await client.until(lambda: len(world.airflow.posts) >= 2)
        waiting = await client.metrics()
        world.airflow.misbehave = lambda: None

        async def is_active() -> dict[str, float] | None:
            metrics = await client.metrics()
            return metrics if active in metrics else None

        running = await client.until(is_active)
        world.airflow.finish(row["run_id"])

        async def is_over() -> bool:
            return active not in await client.metrics()

        await client.until(is_over)
    assert active not in waiting
    assert waiting[undelivered] == pytest.approx(datetime.now(UTC).timestamp(), abs=60)
    assert undelivered not in running
    assert running[active] >= waiting[undelivered]


async def test_an_airflow_that_does_not_answer_is_told_without_anything_to_deliver(world: Any) -> None:
    async with world.controller() as client:

        async def answers(wanted: float) -> bool:
            return (await client.metrics()).get("perennial_controller_airflow_up") == wanted

        await client.until(lambda: answers(1))
        (world.folder / "airflow.json").write_text('{"username": "controller", "password": "wrong"}')
        world.airflow.revoke_tokens()
        await client.until(lambda: answers(0))


async def test_alerts_that_are_held_back_are_counted_by_why(world: Any, make_alert: Any) -> None:
    world.pipeline("flights", "{on: [drift], cooldown: 0s, budget: {runs: 1, per: 7d}}")
    world.validated("flights", 1)
    async with world.controller() as client:
        await run(client, world, "success", "promoted", alert=make_alert())
        (id,) = (await client.alert(make_alert(fingerprint="f2"))).json()["decisions"]
        await client.decided(id, "over_budget")
        metrics = await client.metrics()
    held = {name.split('"')[1]: n for name, n in metrics.items() if name.startswith("perennial_controller_held")}
    others = dict.fromkeys((str(kind) for kind in HELD - {DecisionKind.OVER_BUDGET}), 0)
    assert held == {"over_budget": 1, **others}
    assert metrics[f"perennial_budget_runs_left{OF}"] == 0


async def test_runs_of_the_data_dag_and_of_unknown_pipelines_are_not_training_runs(world: Any, make_alert: Any) -> None:
    async with world.controller() as client:
        await client.http.post("/api/v1/pipelines/flights/data", json={})
        await client.until(lambda: world.airflow.of("flights.data"))
        (key,) = world.airflow.runs
        world.airflow.finish(key[1], "failed")
        await client.alert(make_alert(pipeline="nobodys"))

        async def ended() -> bool:
            return all(row["outcome"] for row in await client.decisions())

        await client.until(ended)
        metrics = await client.metrics()
    assert metrics[f"perennial_run_failures_in_a_row{OF}"] == 0
    assert not any("nobodys" in name for name in metrics)


async def test_figures_stay_while_the_ledger_is_away(world: Any) -> None:
    async with world.controller() as client:
        await run(client, world, "failed")
        await client.metrics()
        with world.database.away():
            metrics = await client.metrics()
    assert metrics["perennial_controller_ledger_up"] == 0
    assert metrics[f"perennial_run_failures_in_a_row{OF}"] == 1


async def test_a_schedule_makes_a_run_due_from_when_it_was_first_seen(world: Any) -> None:
    name = f"perennial_run_due_timestamp_seconds{OF}"
    async with world.controller() as client:
        assert name not in await client.metrics(), "no schedule"

    async def due(schedule: str, other_than: float = 0) -> float:
        world.pipeline("flights", f"{{schedule: '{schedule}', cooldown: 0s}}")
        async with world.controller() as client:

            async def told() -> float | None:
                found = (await client.metrics()).get(name)
                return found if found != other_than else None

            return float(await client.until(told))

    first = await due("@monthly")
    assert first > datetime.now(UTC).timestamp()
    database = world.database
    database.run("UPDATE perennial_marks SET at = at - interval '400 days' WHERE name LIKE 'schedule:%'")
    overdue = await due("@monthly", first)
    assert overdue < datetime.now(UTC).timestamp() - 300 * 86400, "a restart does not forget since when"
    assert await due("@yearly", overdue) > datetime.now(UTC).timestamp(), "a new schedule begins anew"
    assert len(database.run("SELECT 1 FROM perennial_marks WHERE name LIKE 'schedule:%'")) == 1


# -- what is computed --

NOW = datetime(2026, 6, 3, 12, 0, tzinfo=UTC)  # a Wednesday
DAY = timedelta(days=1)


@pytest.fixture
def spec_with(world: Any) -> Any:
    def make(retraining: str, monitoring: str = "") -> Any:
        file = world.pipeline("flights", retraining) / "pipeline.yaml"
        file.write_text(file.read_text().replace("monitoring:\n", f"monitoring:\n{monitoring}"))
        return load_pipeline(file.parent).spec

    return make


@pytest.mark.parametrize(
    ("since", "good", "tick"),
    [
        (NOW, None, datetime(2026, 6, 7, tzinfo=UTC)),
        (NOW - 90 * DAY, NOW, datetime(2026, 6, 7, tzinfo=UTC)),
        (NOW - 90 * DAY, NOW - 14 * DAY, datetime(2026, 5, 24, tzinfo=UTC)),
        (NOW, NOW - 14 * DAY, datetime(2026, 6, 7, tzinfo=UTC)),
        (None, None, None),
    ],
    ids=["never ran", "ran today", "missed one", "a new schedule", "not seen yet"],
)
def test_a_run_is_due_after_the_next_tick_and_the_time_a_run_may_take(
    spec_with: Any, since: Any, good: Any, tick: Any
) -> None:
    spec = spec_with("{schedule: '@weekly'}", "  runs: {longest: 3h}\n")
    assert run_due(spec, since, good) == (tick + timedelta(hours=3) if tick else None)


@pytest.mark.parametrize("retraining", ["{on: [drift]}", "{schedule: '0 0 31 2 *'}", "{schedule: '99 * * * *'}"])
def test_nothing_is_due_without_a_schedule_that_comes(spec_with: Any, retraining: str) -> None:
    assert run_due(spec_with(retraining), NOW, NOW) is None


def test_the_budget_that_is_left_is_the_one_that_the_policy_spends(spec_with: Any) -> None:
    spec = spec_with("{budget: {runs: 2, per: 1d}}")
    assert budget_left(spec, Runs(), NOW) == 2
    assert budget_left(spec, Runs(recent=(ran(NOW - DAY), ran(NOW - timedelta(hours=23)))), NOW) == 1
    assert budget_left(spec, Runs(recent=(ran(NOW),) * 3), NOW) == 0
    assert compute_left(spec, Runs(), NOW) is None


def test_a_budget_of_time_is_left_until_runs_have_taken_it_and_then_no_run_is(spec_with: Any) -> None:
    spec = spec_with("{budget: {runs: 9, per: 1d, compute: 3h}}")
    hours = [timedelta(hours=hour) for hour in range(24)]
    old, first = ran(NOW - DAY - hours[1], hours[5]), ran(NOW - hours[20], hours[2])
    assert compute_left(spec, Runs(recent=(old, first)), NOW) == hours[1]
    assert budget_left(spec, Runs(recent=(old, first)), NOW) == 8
    active = Run("flights", "r", NOW - hours[2], True, True, NOW - hours[1], None)
    assert compute_left(spec, Runs(recent=(first, active)), NOW) == timedelta(0)
    assert budget_left(spec, Runs(recent=(first, active)), NOW) == 0


def test_what_was_due_while_retraining_was_paused_is_past(spec_with: Any) -> None:
    spec = spec_with("{schedule: '@weekly'}", "  runs: {longest: 3h}\n")
    assert run_due(spec, NOW - 90 * DAY, NOW - 30 * DAY, NOW) == datetime(2026, 6, 7, 3, tzinfo=UTC)


def test_what_is_due_in_quiet_hours_is_due_when_they_end(spec_with: Any) -> None:
    night = "{schedule: '0 23 * * *', quiet_hours: {start: '22:00', end: '06:00'}}"
    spec = spec_with(night, "  runs: {longest: 3h}\n")
    seen = datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert run_due(spec, seen) == datetime(2026, 6, 2, 9, tzinfo=UTC)


def test_when_the_last_pause_ended_is_known_whichever_way_it_ended() -> None:
    ran_out = Pause(NOW - DAY, NOW - timedelta(hours=2), "ann", "-", of_all=True)
    lasting = Pause(NOW - DAY, None, "ann", "-")
    assert Figures({}, {}).paused_until("flights", NOW) is None
    assert Figures({}, {}, {"flights": lasting}).paused_until("flights", NOW) is None
    assert Figures({}, {}, {ALL_PIPELINES: ran_out}).paused_until("flights", NOW) == ran_out.until
    both = Figures({}, {}, {ALL_PIPELINES: ran_out}, {"flights": NOW - timedelta(hours=1)})
    assert both.paused_until("flights", NOW) == NOW - timedelta(hours=1)


def ran(accepted: datetime, took: timedelta = timedelta(0)) -> Run:
    return Run("flights", "r", accepted, False, True, accepted, accepted + took)
