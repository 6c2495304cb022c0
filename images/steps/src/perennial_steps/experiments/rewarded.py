"""What came of the answers of a bandit, by answer: each row was drawn by itself, so that each is a unit.

An answer counts when `attribution` has passed since it was made, with the last reward that came by then: a version whose rewards come
faster has no advantage, nor have good rewards that come faster than bad ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from perennial_steps.experiments.arms import Rewards
from perennial_steps.experiments.units import Question, Stage, history, oldest_id

if TYPE_CHECKING:
    import duckdb

_GIVEN = """
SELECT any_value(version) AS arm, any_value(made) + $attribution AS due, arg_max(reward, "at") AS value
FROM (SELECT *, ('0x' || substr(prediction_id, 1, 8) || substr(prediction_id, 10, 4))::BIGINT * 1000 AS made FROM rewards)
WHERE prediction_id >= $oldest AND version IN ($challenger, $champion)
    AND made >= epoch_us($since) AND epoch_us("at") <= made + $attribution
GROUP BY prediction_id
"""
"""The time of an answer is in its id, so that the log of predictions, which may be a sample, is not needed."""

_EVERY = """
SELECT any_value(version) AS arm, any_value(made) + $attribution AS due, coalesce(arg_max(reward, came), 0) AS value
FROM (
    SELECT prediction_id, version, epoch_us("at") AS made
    FROM predictions WHERE "at" >= $since AND NOT shadow AND version IN ($challenger, $champion)
) AS answers LEFT JOIN (
    SELECT prediction_id, reward, epoch_us("at") AS came FROM rewards WHERE prediction_id >= $oldest
) AS given ON given.prediction_id = answers.prediction_id AND came <= made + $attribution
GROUP BY answers.prediction_id
"""

_UNITS = "CREATE TEMP TABLE units AS SELECT arm, due, false AS mixed, value FROM ({answers})"
_BOUNDS = "SELECT min(value), max(value) FROM units"


@dataclass(frozen=True)
class Found:
    """What the log says."""

    history: tuple[Stage, ...]
    """Cumulative, the oldest first; the last is what is known now."""
    rewards: Rewards


def find(connection: duckdb.DuckDBPyConnection, question: Question) -> Found:
    """Ask the log. Only a few rows leave the database, whose memory is bounded.

    Args:
        connection: from `logs.opened`.
        question: of rewards.
    """
    asked = {
        "since": question.since,
        "oldest": oldest_id(question.since),
        "challenger": question.challenger,
        "champion": question.champion,
        "attribution": question.attribution // timedelta(microseconds=1),
    }
    connection.execute(_UNITS.format(answers=_EVERY if question.zero else _GIVEN), asked)
    stages = history(connection, question)
    if not stages:
        return Found((), Rewards())
    low, high = connection.execute(_BOUNDS).fetchall()[0]
    return Found(stages, Rewards(stages[-1].challenger, stages[-1].champion, low, high))
