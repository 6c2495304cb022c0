-- One row per flight: what was known an hour before its scheduled departure, and whether it arrived late.
--
-- Times: `time_hour` is UTC in both sources; `sched_dep_time`, `hour` and `minute` are New York's wall clock, which is what
-- passengers and crews live by. `scheduled_departure` is UTC, so that hours neither repeat nor vanish when the clocks change.
--
-- Weather: the observation filed under hour h is made up to h:59, so the newest one that is surely out an hour before departure
-- is filed two hours before it. One that is older than six hours says nothing any more, and counts as missing.
WITH
flight AS (
    SELECT
        *,
        epoch_us(time_hour) + minute * 60 * 1000000 AS departure_us,
        concat_ws('-', strftime(make_date(year, month, day), '%Y%m%d'), carrier, flight, origin) AS flight_id
    FROM flights
    WHERE time_hour IS NOT NULL AND carrier IS NOT NULL AND flight IS NOT NULL AND origin IS NOT NULL
    -- A flight that is delivered twice counts once: with its outcome, when one of the copies has it.
    QUALIFY row_number() OVER (PARTITION BY year, month, day, carrier, flight, origin ORDER BY arr_delay NULLS LAST) = 1
),
observation AS (
    SELECT *, epoch_us(time_hour) AS observed_us
    FROM weather
    -- A broken reading (one wind of 1,048 mph) is passed over for the one before it. Gusts, pressure and the direction of a calm
    -- are often not reported, and stay missing.
    WHERE temp IS NOT NULL AND dewp IS NOT NULL AND humid IS NOT NULL AND precip IS NOT NULL AND visib IS NOT NULL
        AND wind_speed BETWEEN 0 AND 200
    QUALIFY row_number() OVER (PARTITION BY origin, time_hour ORDER BY pressure NULLS LAST) = 1
),
plane AS (
    SELECT * FROM planes
    QUALIFY row_number() OVER (PARTITION BY tailnum ORDER BY year NULLS LAST) = 1
),
joined AS (
    SELECT
        f.*,
        p.year AS plane_year, p.manufacturer AS plane_manufacturer, p.type AS plane_type, p.engines, p.seats,
        w.observed_us, w.temp, w.dewp, w.humid, w.wind_dir, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib,
        f.departure_us - w.observed_us <= 6 * 3600 * 1000000::BIGINT AS is_fresh
    FROM flight AS f
    ASOF LEFT JOIN observation AS w
        ON f.origin = w.origin AND f.departure_us - 2 * 3600 * 1000000::BIGINT >= w.observed_us
    LEFT JOIN plane AS p ON f.tailnum = p.tailnum
)
SELECT
    flight_id,
    make_timestamp(departure_us) AS scheduled_departure,
    -- Schedule and route
    isodow(make_date(year, month, day)) AS departure_weekday,                 -- 1 is Monday
    hour * 60 + minute AS departure_minute,                                   -- of the local day
    sched_arr_time // 100 * 60 + sched_arr_time % 100 AS arrival_minute,      -- of the local day at the destination
    carrier,
    origin,
    dest AS destination,
    distance::DOUBLE AS distance_miles,
    -- Plane; about one in six is not in the register
    tailnum AS tail_number,
    plane_year::DOUBLE AS plane_year,
    plane_manufacturer,
    plane_type,
    engines::DOUBLE AS plane_engines,
    seats::DOUBLE AS plane_seats,
    -- Weather at the origin
    CASE WHEN is_fresh THEN make_timestamp(observed_us) END AS weather_observed_at,
    CASE WHEN is_fresh THEN temp END AS temperature_f,
    CASE WHEN is_fresh THEN dewp END AS dewpoint_f,
    CASE WHEN is_fresh THEN humid END AS humidity_percent,
    CASE WHEN is_fresh THEN wind_dir::DOUBLE END AS wind_direction_degrees,
    CASE WHEN is_fresh THEN wind_speed END AS wind_speed_mph,
    CASE WHEN is_fresh THEN wind_gust END AS wind_gust_mph,
    CASE WHEN is_fresh THEN precip END AS precipitation_inches,
    CASE WHEN is_fresh THEN pressure END AS pressure_hpa,
    CASE WHEN is_fresh THEN visib END AS visibility_miles,
    -- Only known later: pipeline.yaml excludes them, so that they are neither stored nor seen by a model
    dep_time,
    dep_delay,
    arr_time,
    arr_delay,
    air_time,
    -- Label: NULL for a flight that was cancelled, diverted, or has not arrived yet
    CASE WHEN arr_delay IS NOT NULL THEN (arr_delay > 15)::BIGINT END AS late
FROM joined
