"""What came of the answers of an A/B experiment, by entity: the unit that the versions were dealt out to is the unit that is analysed.

An entity belongs to the version that answered it first. It is looked at when `attribution` has passed since then, with what has come by
then, and never again: so each is one independent value, whatever its number of requests, and a late reward changes no look that was made.
A request without an entity is dealt out by itself, and is a unit of its own. An entity that both versions have answered within the time
(a tester's override) says nothing of either, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from perennial_steps.experiments.moments import Moments

if TYPE_CHECKING:
    import duckdb

PLACES = 100
"""Points of the history."""
MARGIN = timedelta(seconds=15)
"""A server writes its log in batches: what is younger than this may not be in it yet."""
Loss = Literal["brier", "log_loss", "absolute", "squared"]

_LOSSES: dict[Loss, str] = {
    "brier": "pow(score - label, 2)",
    "log_loss": "-ln(greatest(if(label > 0.5, score, 1 - score), 1e-15))",
    "absolute": "abs(score - label)",
    "squared": "pow(score - label, 2)",
}

_ANSWERS = """
CREATE TEMP TABLE answers AS
WITH logged AS (
    SELECT prediction_id, entity, version, score, epoch_us("at") AS made,
        if(entity IS NULL, 'p' || prediction_id, 'e' || entity) AS unit
    FROM predictions
    WHERE "at" >= $since AND "at" < $until AND NOT shadow AND version IN ($challenger, $champion)
), units AS (
    SELECT unit, min(made) AS first, arg_min(version, made) AS arm FROM logged GROUP BY unit
)
SELECT logged.*, first, arm, first + $attribution AS due FROM logged JOIN units USING (unit) WHERE made <= first + $attribution
"""

_REWARDED = """
rewarded AS (
    SELECT prediction_id, arg_max(reward, "at") AS reward
    FROM rewards JOIN answers USING (prediction_id)
    WHERE rewards.prediction_id >= $oldest AND epoch_us("at") <= due
    GROUP BY prediction_id
), valued AS (
    SELECT unit, arm, due, version, {reward} AS value FROM answers LEFT JOIN rewarded USING (prediction_id)
)
"""

_LABELLED = """
own AS (
    SELECT prediction_id, arg_max(label, "at") AS label
    FROM labels JOIN answers USING (prediction_id) WHERE epoch_us("at") <= due GROUP BY prediction_id
), newest AS (
    SELECT entity, arg_max(prediction_id, made) AS prediction_id, any_value(due) AS due
    FROM answers WHERE entity IS NOT NULL GROUP BY entity
), theirs AS (
    SELECT newest.prediction_id, arg_max(label, "at") AS label
    FROM labels JOIN newest ON labels.entity = newest.entity AND labels.prediction_id IS NULL
    WHERE epoch_us("at") <= due GROUP BY newest.prediction_id
), valued AS (
    SELECT unit, arm, due, version, -({loss}) AS value
    FROM (
        SELECT answers.*, coalesce(own.label, theirs.label) AS label
        FROM answers LEFT JOIN own USING (prediction_id) LEFT JOIN theirs USING (prediction_id)
    )
)
"""

_UNITS = """
CREATE TEMP TABLE units AS
WITH {valued}
SELECT arm, due, bool_or(version <> arm) AS mixed, avg(value) AS value FROM valued GROUP BY unit, arm, due
"""

_HISTORY = """
WITH ripe AS (
    SELECT arm, value, least(floor((due - $first) * $places / ($last - $first)), $places - 1)::INT AS place
    FROM units WHERE NOT mixed AND due <= $last AND value IS NOT NULL
), means AS (
    SELECT arm, place, count(*) AS n, avg(value) AS mean FROM ripe GROUP BY arm, place
)
SELECT arm, place, any_value(n), any_value(mean), sum(pow(value - mean, 2)), sum(pow(value - mean, 3))
FROM ripe JOIN means USING (arm, place) GROUP BY arm, place ORDER BY place
"""

_COUNTS = "SELECT arm, count(*) FILTER (NOT mixed), count(*) FILTER (mixed) FROM units GROUP BY arm"


@dataclass(frozen=True)
class Question:
    """What is asked of the log."""

    challenger: str
    champion: str
    since: datetime
    """When the experiment began: answers before that are of no interest."""
    now: datetime
    attribution: timedelta
    loss: Loss | None = None
    """Of the labels; None: rewards."""
    zero: bool = False
    """An answer without a reward counts as a reward of 0."""


@dataclass(frozen=True)
class Stage:
    """What was known when so much of the experiment was over."""

    over: float
    """Share of the time from the beginning until now."""
    challenger: Moments
    champion: Moments


@dataclass(frozen=True)
class Found:
    """What the log says."""

    history: tuple[Stage, ...]
    """Cumulative, the oldest first; the last is what is known now. Values are rewards, or losses with a minus: more is better."""
    dealt: tuple[int, int]
    """Entities that the challenger and the champion have answered first, looked at or not."""
    mixed: int
    """Entities that both have answered: they are left out."""

    @property
    def challenger(self) -> Moments:
        return self.history[-1].challenger if self.history else Moments()

    @property
    def champion(self) -> Moments:
        return self.history[-1].champion if self.history else Moments()


def find(connection: duckdb.DuckDBPyConnection, question: Question) -> Found:
    """Ask the log. Only a few rows leave the database, whose memory is bounded.

    Args:
        connection: from `logs.opened`.
    """
    connection.execute(
        _ANSWERS,
        {
            "since": question.since,
            "until": question.now,
            "challenger": question.challenger,
            "champion": question.champion,
            "attribution": question.attribution // timedelta(microseconds=1),
        },
    )
    if question.loss is not None:
        connection.execute(_UNITS.format(valued=_LABELLED.format(loss=_LOSSES[question.loss])))
    else:
        reward = "coalesce(reward, 0)" if question.zero else "reward"
        connection.execute(_UNITS.format(valued=_REWARDED.format(reward=reward)), {"oldest": oldest_id(question.since)})
    counts = {arm: (dealt, mixed) for arm, dealt, mixed in connection.execute(_COUNTS).fetchall()}
    ours, theirs = (counts.get(version, (0, 0)) for version in (question.challenger, question.champion))
    return Found(history(connection, question), (ours[0], theirs[0]), ours[1] + theirs[1])


def history(connection: duckdb.DuckDBPyConnection, question: Question) -> tuple[Stage, ...]:
    """What is known of both versions, stage by stage, from the table `units` (arm, due, mixed, value)."""
    first = _micros(question.since + question.attribution)
    last = max(_micros(question.now - MARGIN), first + 1)
    found = connection.execute(_HISTORY, {"first": first, "last": last, "places": PLACES})
    return tuple(_stages(found.fetchall(), question))


def oldest_id(since: datetime) -> str:
    """The lowest prediction id of a moment: ids begin with their time in milliseconds, and files know their lowest and highest.

    A minute earlier, for ids are made before the answer is.
    """
    digits = f"{_micros(since - timedelta(minutes=1)) // 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def _stages(rows: list[tuple[Any, ...]], question: Question) -> list[Stage]:
    known = {question.challenger: Moments(), question.champion: Moments()}
    stages: dict[int, Stage] = {}
    for arm, place, *moments in rows:
        known[arm] += Moments(*moments)
        stages[place] = Stage((place + 1) / PLACES, known[question.challenger], known[question.champion])
    return list(stages.values())


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
