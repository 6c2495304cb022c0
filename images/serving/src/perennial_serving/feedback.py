"""`/feedback`: labels that arrive late, as rows for the labels table."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from perennial_serving.entities import entity_key
from perennial_serving.prediction_log import Label
from perennial_serving.rows import check_count, json_object, kind_of, need_list
from perennial_spec.errors import RequestError

_FIELDS = {"entity", "label", "at"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(body: bytes, max_rows: int) -> list[Label]:
    """`{"labels": [{"entity": ..., "label": ..., "at": optional ISO 8601}]}`.

    Raises:
        NotParsed: not a JSON object.
        RequestError: names the label and field.
        TooLarge: more than `max_rows`.
    """
    values = need_list(json_object(body).get("labels"), "labels", 'a list of {"entity": ..., "label": ...}')
    check_count(len(values), max_rows)
    if not values:
        raise RequestError("is empty", where="labels", expected="one or more labels")
    now = time.time_ns() // 1000
    return [_label(value, f"labels[{place}]", now) for place, value in enumerate(values)]


def _label(value: Any, where: str, now: int) -> Label:
    if not isinstance(value, dict) or not value.keys() <= _FIELDS:
        got = "an unknown field" if isinstance(value, dict) else kind_of(value)
        raise RequestError(f"got {got}", where=where, expected="an object with entity, label and perhaps at")
    entity = entity_key(value.get("entity"), f"{where}.entity")
    if entity is None:
        raise RequestError("is missing", where=f"{where}.entity", expected="the entity that was predicted")
    label = value.get("label")
    if not isinstance(label, int | float) or not math.isfinite(label):
        raise RequestError(f"got {kind_of(label)}", where=f"{where}.label", expected="a number, true or false")
    return Label(entity, float(label), now if value.get("at") is None else _moment(value["at"], f"{where}.at"))


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
