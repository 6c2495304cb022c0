"""What a model of flight delays sees: schedule, route, plane, and the weather at the origin.

Nothing here tells the date: a model that knows the day of the year learns last winter's storms by heart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

LATITUDE, LONGITUDE = 40.7, -73.9  # degrees; the three airports lie within 30 km of each other
DAY_MINUTES = 24 * 60


def features(columns: Mapping[str, Array]) -> dict[str, Array]:
    """The features of flights, one value per flight; NaN or None where something is not known."""
    departure = columns["departure_minute"]
    return {
        "departure_minute": departure,
        "departure_weekday": columns["departure_weekday"],
        "carrier": columns["carrier"],
        "origin": columns["origin"],
        "destination": columns["destination"],
        "distance_miles": columns["distance_miles"],
        "planned_minutes": (columns["arrival_minute"] - departure) % DAY_MINUTES,  # by the local clocks of both ends
        "plane_age_years": _years(columns["scheduled_departure"]) - columns["plane_year"],
        "plane_seats": columns["plane_seats"],
        "plane_manufacturer": columns["plane_manufacturer"],
        "sun_elevation_degrees": sun_elevation(columns["scheduled_departure"]),
        "icing": icing(columns["temperature_f"], columns["dewpoint_f"]),
        "temperature_f": columns["temperature_f"],
        "humidity_percent": columns["humidity_percent"],
        "wind_direction_degrees": columns["wind_direction_degrees"],
        "wind_speed_mph": columns["wind_speed_mph"],
        "wind_gust_mph": columns["wind_gust_mph"],
        "precipitation_inches": columns["precipitation_inches"],
        "pressure_hpa": columns["pressure_hpa"],
        "visibility_miles": columns["visibility_miles"],
    }


def icing(temperature_f: Array, dewpoint_f: Array) -> Array:
    """`yes` where planes need de-icing: about freezing, in air that is moist enough for frost; None if not known."""
    likely = (temperature_f <= 39) & (temperature_f - dewpoint_f <= 9)
    found: Array = np.where(likely, "yes", "no").astype(object)
    found[np.isnan(temperature_f) | np.isnan(dewpoint_f)] = None
    return found


def sun_elevation(departure: Array) -> Array:
    """The sun's height over the horizon at New York in degrees, negative at night.

    Heat builds thunderstorms up over the day, and darkness slows a ramp down: both follow the sun and not the clock. To about
    half a degree, after NOAA's "General Solar Position Calculations" (Spencer's Fourier series, 1971).

    Args:
        departure: datetime64[us], UTC.
    """
    days = (departure - departure.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    year = 2 * np.pi * (days - 0.5) / 365
    declination = (
        0.006918
        - 0.399912 * np.cos(year)
        + 0.070257 * np.sin(year)
        - 0.006758 * np.cos(2 * year)
        + 0.000907 * np.sin(2 * year)
        - 0.002697 * np.cos(3 * year)
        + 0.00148 * np.sin(3 * year)
    )
    equation_of_time = 229.18 * (  # minutes
        0.000075
        + 0.001868 * np.cos(year)
        - 0.032077 * np.sin(year)
        - 0.014615 * np.cos(2 * year)
        - 0.040849 * np.sin(2 * year)
    )
    solar_minutes = days % 1 * DAY_MINUTES + equation_of_time + 4 * LONGITUDE
    hour_angle = np.radians(solar_minutes / 4 - 180)
    latitude = np.radians(LATITUDE)
    sine = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)
    elevation: Array = np.degrees(np.arcsin(sine))
    return elevation


def _years(departure: Array) -> Array:
    return departure.astype("datetime64[Y]").astype(np.float64) + 1970
