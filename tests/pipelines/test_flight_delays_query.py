"""features.sql: one row per flight, and nothing in a model's inputs that was not known an hour before departure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa

KNOWN_LATER = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
# From LaGuardia at 11:59 in New York: the newest weather that was out is filed under 13:00 UTC.
FLIGHT, DEPARTURE = "20130601-DL-1174-LGA", datetime(2013, 6, 1, 15, 59)
NEWEST = "time_hour = TIMESTAMP '2013-06-01 13:00'"


def inputs(table: pa.Table, pipeline) -> pa.Table:
    """What a model may see, beside the key."""
    data = pipeline.spec.data
    return table.drop_columns([data.label.column, *data.exclude])


def test_a_flight_is_one_row_with_a_key_of_its_own(world):
    ((flights,),) = world.connection.execute("SELECT count(*) FROM flights").fetchall()
    ids = world.rows()["flight_id"].to_pylist()
    assert len(ids) == flights > 1500
    assert len(set(ids)) == flights


def test_a_flight_that_is_delivered_twice_counts_once_and_with_its_outcome(world, pipeline):
    before = world.rows()
    world.change("INSERT INTO flights SELECT * REPLACE (NULL AS arr_delay) FROM flights")
    world.change("INSERT INTO weather FROM weather; INSERT INTO planes FROM planes")
    after = world.rows()
    assert after["late"].equals(before["late"])
    assert inputs(after, pipeline).equals(inputs(before, pipeline))


def test_no_input_changes_when_all_that_is_only_known_later_does(world, pipeline):
    before = inputs(world.rows(), pipeline)
    world.change("UPDATE flights SET " + ", ".join(f"{name} = 1234 - coalesce({name}, 0)" for name in KNOWN_LATER))
    assert inputs(world.rows(), pipeline).equals(before)


def test_what_is_only_known_later_is_excluded_by_the_spec(pipeline):
    assert set(KNOWN_LATER) <= set(pipeline.spec.data.exclude)


def test_weather_was_out_an_hour_before_departure_and_is_not_stale(world):
    table = world.rows()
    pairs = zip(table["scheduled_departure"].to_pylist(), table["weather_observed_at"].to_pylist(), strict=True)
    ages = [departure - observed for departure, observed in pairs if observed]
    assert len(ages) > 1500
    # An observation filed under an hour is made by its end, and must be out an hour before departure.
    assert min(ages) >= timedelta(hours=2)
    assert max(ages) <= timedelta(hours=6)


def test_later_weather_changes_nothing(world):
    before = world.row(FLIGHT)
    assert before["scheduled_departure"] == DEPARTURE
    later = f"time_hour > TIMESTAMP '{DEPARTURE - timedelta(hours=2)}'"
    world.change(f"UPDATE weather SET {', '.join(f'{name} = 1' for name in WEATHER)} WHERE {later}")
    assert world.row(FLIGHT) == before


def test_the_newest_weather_that_was_out_is_taken(world):
    world.change(f"UPDATE weather SET temp = 99 WHERE origin = 'LGA' AND {NEWEST}")
    assert world.row(FLIGHT)["temperature_f"] == 99


def test_weather_of_another_airport_is_not_taken(world):
    before = world.row(FLIGHT)
    world.change("UPDATE weather SET temp = 99 WHERE origin <> 'LGA'")
    assert world.row(FLIGHT) == before


def test_a_broken_reading_is_passed_over_for_the_one_before(world):
    world.change(f"UPDATE weather SET wind_speed = 1048 WHERE {NEWEST}")
    row = world.row(FLIGHT)
    assert row["weather_observed_at"] == datetime(2013, 6, 1, 12)
    assert row["wind_speed_mph"] < 100


def test_weather_older_than_six_hours_counts_as_missing(world):
    world.change(f"DELETE FROM weather WHERE time_hour > TIMESTAMP '{DEPARTURE - timedelta(hours=7)}'")
    row = world.row(FLIGHT)
    assert row["weather_observed_at"] is None
    assert row["temperature_f"] is None
    assert row["visibility_miles"] is None


def test_a_flight_without_weather_or_plane_keeps_its_row(world):
    flights = world.rows().num_rows
    world.change("DELETE FROM weather; DELETE FROM planes; UPDATE flights SET tailnum = NULL")
    table = world.rows()
    assert table.num_rows == flights
    assert table["temperature_f"].null_count == table["plane_year"].null_count == flights


def test_departure_is_in_utc_and_the_schedule_by_the_clock_on_the_wall(world):
    for row in world.rows().to_pylist():
        local = row["scheduled_departure"].replace(tzinfo=UTC).astimezone(ZoneInfo("America/New_York"))
        assert row["departure_minute"] == local.hour * 60 + local.minute
        assert row["departure_weekday"] == local.isoweekday()
        assert row["flight_id"].startswith(f"{local:%Y%m%d}-{row['carrier']}-")


def test_late_is_more_than_fifteen_minutes_and_a_cancelled_flight_has_no_label(rows):
    labels = {None: 0, 0: 0, 1: 0}
    for delay, late in zip(rows["arr_delay"].to_pylist(), rows["late"].to_pylist(), strict=True):
        assert late == (None if delay is None else int(delay > 15))
        labels[late] += 1
    assert all(count > 1000 for count in labels.values())


def test_a_month_of_snow_meets_every_expectation(rows, pipeline, tmp_path):
    from perennial_steps.validation_gx import evaluate

    evaluated = evaluate(pipeline, rows, 1, tmp_path)
    assert not evaluated.failed


def test_a_broken_delivery_meets_them_no_more(world, pipeline, tmp_path):
    from perennial_steps.validation_gx import evaluate

    world.change("UPDATE flights SET origin = 'XXX', distance = -1, minute = -1000, arr_delay = NULL")
    failed = {check.column for check in evaluate(pipeline, world.rows(), 1, tmp_path).failed}
    assert {"origin", "distance_miles", "departure_minute", "late"} <= failed
