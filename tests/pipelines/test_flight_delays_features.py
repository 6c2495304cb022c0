"""features.py: the same for one flight as for a month of them, blind to the outcome, and right about the sun."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from perennial_steps.training.dataset import assemble

FLIGHTS = 500


@pytest.fixture(scope="module")
def dataset(rows, pipeline):
    return assemble(rows, pipeline.spec.data, pipeline.spec.model.kind)


@pytest.fixture(scope="module")
def columns(dataset):
    """Inputs of flights from all over the month."""
    places = np.linspace(0, len(dataset) - 1, FLIGHTS).astype(int)
    return {name: values[places] for name, values in dataset.inputs.items()}


def same(one, other):
    """Equal; missing equals missing."""
    if one.dtype.kind == "O":
        return one.tolist() == other.tolist()
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def test_features_are_one_value_per_flight_under_stable_names(code, columns):
    features = code.apply(columns)
    assert 15 <= len(features) <= 23
    assert {len(values) for values in features.values()} == {FLIGHTS}


def test_a_single_flight_gives_what_it_gives_among_many(code, columns):
    together = code.apply(columns)
    for place in range(0, FLIGHTS, 10):
        alone = code.apply({name: values[place : place + 1] for name, values in columns.items()})
        for name, values in together.items():
            assert same(alone[name], values[place : place + 1]), name


def test_no_feature_needs_or_heeds_the_label_or_an_excluded_column(code, columns, dataset, pipeline):
    data = pipeline.spec.data
    hidden = (data.label.column, *data.exclude)
    assert not set(hidden) & set(columns)
    expected, _ = code.trace(columns)
    for value in (0, 999):
        features, used = code.trace({**columns, **{name: np.full(FLIGHTS, value) for name in hidden}})
        assert not set(used) & set(hidden)
        assert all(same(features[name], values) for name, values in expected.items())
    assert set(hidden) <= set(dataset.table.column_names)


def test_no_feature_is_the_key_or_the_time_itself(code, columns, pipeline):
    other = {**columns, "flight_id": np.full(FLIGHTS, "x", dtype=object)}
    assert all(same(code.apply(other)[name], values) for name, values in code.apply(columns).items())
    assert not {pipeline.spec.data.entity, pipeline.spec.data.timestamp} & set(code.apply(columns))


def test_only_the_height_of_the_sun_tells_one_week_from_the_next(code, columns):
    week_later = {**columns, "scheduled_departure": columns["scheduled_departure"] + np.timedelta64(7, "D")}
    before, after = code.apply(columns), code.apply(week_later)
    changed = {name for name, values in before.items() if not same(after[name], values)}
    assert changed == {"sun_elevation_degrees"}
    assert np.abs(after["sun_elevation_degrees"] - before["sun_elevation_degrees"]).max() < 4


def test_missing_weather_and_planes_stay_missing(code, columns):
    floats = [name for name, values in columns.items() if values.dtype.kind == "f"]
    nothing = {name: np.full(FLIGHTS, np.nan) for name in floats} | {"plane_manufacturer": np.full(FLIGHTS, None)}
    features = code.apply({**columns, **nothing})
    for name in ("temperature_f", "plane_age_years", "plane_seats", "visibility_miles"):
        assert np.isnan(features[name]).all(), name
    assert set(features["icing"].tolist()) == set(features["plane_manufacturer"].tolist()) == {None}


@pytest.mark.parametrize(
    ("temperature", "dewpoint", "expected"),
    [(28, 25, "yes"), (39, 30, "yes"), (28, 10, "no"), (60, 58, "no"), (np.nan, 25, None), (28, np.nan, None)],
)
def test_icing_needs_cold_and_moist_air(code, columns, temperature, dewpoint, expected):
    weather = {"temperature_f": np.full(FLIGHTS, float(temperature)), "dewpoint_f": np.full(FLIGHTS, float(dewpoint))}
    assert set(code.apply({**columns, **weather})["icing"].tolist()) == {expected}


def sun(code, columns, *moments):
    at = np.array(moments, dtype="datetime64[us]")
    one = {name: np.repeat(values[:1], len(at)) for name, values in columns.items()}
    return code.apply({**one, "scheduled_departure": at})["sun_elevation_degrees"]


@pytest.mark.parametrize(
    ("day", "declination"),
    # At the solstices and equinoxes the sun stands at noon 90 degrees less the latitude plus its declination.
    [
        (datetime(2013, 6, 21), 23.44),
        (datetime(2013, 12, 21), -23.44),
        (datetime(2013, 3, 20), 0),
        (datetime(2013, 9, 22), 0),
    ],
)
def test_the_sun_is_highest_as_astronomy_has_it(code, columns, day, declination):
    minutes = [day + timedelta(minutes=minute) for minute in range(24 * 60)]
    heights = sun(code, columns, *minutes)
    assert heights.max() == pytest.approx(90 - 40.7 + declination, abs=0.7)
    # Solar noon at 73.9 degrees west is 16:56 UTC, give or take the equation of time.
    assert abs(minutes[int(heights.argmax())] - (day + timedelta(hours=16, minutes=56))) < timedelta(minutes=17)


def test_the_sun_rises_and_sets_when_the_almanac_says(code, columns):
    # New York, 21 June 2013: 5:25 and 20:31 EDT; 21 December: 7:17 and 16:32 EST. The upper rim shows at -0.83 degrees.
    moments = ("2013-06-21T09:25", "2013-06-22T00:31", "2013-12-21T12:17", "2013-12-21T21:32")
    assert sun(code, columns, *moments) == pytest.approx([-0.83] * 4, abs=0.6)
