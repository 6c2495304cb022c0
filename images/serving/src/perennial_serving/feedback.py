"""`/feedback`: labels and rewards that arrive late, as rows for their tables."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from perennial_serving.entities import entity_key
from perennial_serving.ids import version_of
from perennial_serving.log_entries import Label, Reward
from perennial_serving.rows import check_count, json_object, kind_of, need_list
from perennial_spec.errors import RequestError

_LABEL_FIELDS, _REWARD_FIELDS = {"entity", "prediction_id", "label", "at"}, {"prediction_id", "reward", "at"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Feedback:
    """What came back from the world."""

    labels: list[Label]
    rewards: list[Reward]

    def __len__(self) -> int:
        return len(self.labels) + len(self.rewards)


def parse(body: bytes, max_rows: int, marks: Mapping[str, int]) -> Feedback:
    """`{"labels": [{"entity", "label", "at"}], "rewards": [{"prediction_id", "reward", "at"}]}`: one or both; `at` may be missing.

    A label names the entity, or with `prediction_id` the one prediction that it is of.

    Args:
        body: JSON.
        max_rows: labels and rewards together.
        marks: of the versions that are loaded, to tell which of them a prediction id comes from.

    Raises:
        NotParsed: not a JSON object.
        RequestError: names the label or reward and its field.
        TooLarge: more than `max_rows`.
    """
    found = json_object(body)
    given = {name: found[name] for name in ("labels", "rewards") if name in found}
    if not given:
        need_list(
            None, "labels", 'a list of {"entity": ..., "label": ...}; or rewards: {"prediction_id": ..., "reward": ...}'
        )
    for name, values in given.items():
        if not need_list(values, name, f"a list of {name}"):
            raise RequestError("is empty", where=name, expected=f"one or more {name}")
    check_count(sum(map(len, given.values())), max_rows)
    now = time.time_ns() // 1000
    return Feedback(
        [_label(value, f"labels[{place}]", now) for place, value in enumerate(given.get("labels", ()))],
        [_reward(value, f"rewards[{place}]", now, marks) for place, value in enumerate(given.get("rewards", ()))],
    )


def _label(value: Any, where: str, now: int) -> Label:
    _check_fields(value, _LABEL_FIELDS, where, "an object with entity or prediction_id, label and perhaps at")
    entity = entity_key(value.get("entity"), f"{where}.entity")
    id_ = None if value.get("prediction_id") is None else _prediction_id(value, where)
    if (entity is None) == (id_ is None):
        what, place = ("is missing", f"{where}.entity") if id_ is None else ("has entity and prediction_id", where)
        raise RequestError(what, where=place, expected="the entity that was predicted, or the prediction_id")
    label = value.get("label")
    if not isinstance(label, int | float) or not math.isfinite(label):
        raise RequestError(f"got {kind_of(label)}", where=f"{where}.label", expected="a number, true or false")
    return Label(entity, float(label), _at(value, where, now), id_)


def _reward(value: Any, where: str, now: int, marks: Mapping[str, int]) -> Reward:
    _check_fields(value, _REWARD_FIELDS, where, "an object with prediction_id, reward and perhaps at")
    id_ = _prediction_id(value, where)
    reward = value.get("reward")
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
        raise RequestError(f"got {kind_of(reward)}", where=f"{where}.reward", expected="a number")
    return Reward(id_, version_of(id_, marks), float(reward), _at(value, where, now))


def _prediction_id(value: dict[str, Any], where: str) -> str:
    id_ = value.get("prediction_id")
    if not isinstance(id_, str) or not _is_uuid(id_):
        raise RequestError(
            f"got {kind_of(id_)}", where=f"{where}.prediction_id", expected="the id that came with the prediction"
        )
    return id_


def _check_fields(value: Any, fields: set[str], where: str, expected: str) -> None:
    if not isinstance(value, dict) or not value.keys() <= fields:
        got = "an unknown field" if isinstance(value, dict) else kind_of(value)
        raise RequestError(f"got {got}", where=where, expected=expected)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _at(value: dict[str, Any], where: str, now: int) -> int:
    return now if value.get("at") is None else _moment(value["at"], f"{where}.at")


def _moment(value: Any, where: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise RequestError(
            "is no timestamp",
            where=where,
            expected="ISO 8601, such as 2013-06-01T05:15:00Z; without an offset it is UTC",
        ) from None
    return (moment - _EPOCH) // timedelta(microseconds=1)
