"""Answering rows: assignment to versions, typed columns, prediction, counting, and the entry in the log.

The order matters. All rows are typed before any is predicted, and nothing is counted or logged until all are: a request either
happened or did not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from perennial_features.bundle import Scored
from perennial_features.code import Array
from perennial_features.request import columns_from_rows
from perennial_features.schema import FeatureSchema, missing
from perennial_serving.entities import entity_keys
from perennial_serving.fleet import LoadedModel, Served, stored_key
from perennial_serving.ids import prediction_ids
from perennial_serving.oip import Answer
from perennial_serving.prediction_log import PredictionLog, PredictionRows
from perennial_serving.rows import Rows, show
from perennial_serving.settings import Settings
from perennial_spec.errors import FeatureError, PerennialError, RequestError

log = logging.getLogger(__name__)
_MAX_SHADOWS = 32
"""Shadow predictions that may wait at once; more are left out: a shadow never slows an answer."""


class Blamed(Exception):
    """A request that a version could not answer.

    Args:
        model: the version.
        error: a RequestError when the request is at fault; anything else is the version's own failure.
    """

    def __init__(self, model: LoadedModel, error: Exception) -> None:
        super().__init__(model.version)
        self.model = model
        self.error = error


@dataclass(frozen=True)
class Part:
    """The rows of a request that one version answers."""

    model: LoadedModel
    places: Sequence[int] | None
    """Their places in the request; None for all."""
    rows: Rows
    keys: Sequence[str | None]
    """Their entities."""


@dataclass(frozen=True)
class Answered:
    answer: Answer
    models: tuple[LoadedModel, ...]


class Engine:
    """Answers rows for any pipeline."""

    def __init__(self, settings: Settings, prediction_log: PredictionLog | None) -> None:
        self._settings = settings
        self._log = prediction_log
        self._pool = ThreadPoolExecutor(settings.predict_threads, thread_name_prefix="predict")
        self._shadows = 0

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def answer(self, served: Served, rows: Rows, version: str | None) -> Answered:
        """Scores for `rows`, by the versions of the route, or all by `version`.

        Raises:
            UnknownVersion: `version` is not loaded.
            Blamed: a version cannot answer; holds the reason.
        """
        parts = _parts(served, rows, version)
        if rows.count <= self._settings.inline_rows:
            scored = [_predict(part) for part in parts]
        else:
            loop = asyncio.get_running_loop()
            scored = [await loop.run_in_executor(self._pool, _predict, part) for part in parts]
        ids = prediction_ids(rows.count)
        for part, result in zip(parts, scored, strict=True):
            self._record(part, result, ids, shadow=False)
        if version is None and served.shadows:
            self._cast_shadows(served, rows, ids)
        return Answered(_merged(parts, scored, ids), tuple(part.model for part in parts))

    def _record(self, part: Part, scored: Scored, ids: Sequence[str], shadow: bool) -> None:
        model = part.model
        model.counters.observe(scored.increments, part.rows.count)
        if self._log is not None:
            keys = part.keys
            if model.entity_redacted:
                keys = [key and stored_key(model.pipeline, key) for key in keys]
            mine = ids if part.places is None else [ids[place] for place in part.places]
            entry = PredictionRows(
                mine, keys, model.version, scored.predictions, shadow, time.time_ns() // 1000, part.rows, model.logged
            )
            self._log.predictions(model.pipeline, entry)

    def _cast_shadows(self, served: Served, rows: Rows, ids: Sequence[str]) -> None:
        for model in served.shadows:
            if self._shadows >= _MAX_SHADOWS:
                return
            self._shadows += 1
            keys = entity_keys(rows, model.entity)
            task = asyncio.ensure_future(self._shadow(Part(model, None, rows, keys), ids))
            task.add_done_callback(self._shadow_done)

    async def _shadow(self, part: Part, ids: Sequence[str]) -> None:
        start = time.perf_counter()
        code = 200
        try:
            scored = await asyncio.get_running_loop().run_in_executor(self._pool, _predict, part)
            self._record(part, scored, ids, shadow=True)
        except Blamed as blamed:
            code = 400 if isinstance(blamed.error, RequestError) else 500
        part.model.counters.request("shadow", code, time.perf_counter() - start)

    def _shadow_done(self, _: object) -> None:
        self._shadows -= 1


def describe_failure(blamed: Blamed) -> str:
    """What failed, without a word of what was sent: feature code puts values into its messages."""
    error = blamed.error
    where = f" at {PurePath(error.where).name}" if isinstance(error, PerennialError) and error.where else ""
    cause = error.__cause__ or error
    return f"version {blamed.model.version} of {blamed.model.pipeline} failed: {type(cause).__name__}{where}"


def _parts(served: Served, rows: Rows, version: str | None) -> list[Part]:
    if version is not None:
        model = served.model(version)
        return [Part(model, None, rows, entity_keys(rows, model.entity))]
    assert served.first is not None
    keys = entity_keys(rows, served.first.entity)
    assigned = served.assign(keys)
    if assigned.count(assigned[0]) == rows.count:
        return [Part(served.models[assigned[0]], None, rows, keys)]
    places: dict[str, list[int]] = {}
    for place, owner in enumerate(assigned):
        places.setdefault(owner, []).append(place)
    return [
        Part(served.models[owner], mine, rows.take(mine), [keys[place] for place in mine])
        for owner, mine in places.items()
    ]


def _predict(part: Part) -> Scored:
    bundle = part.model.bundle
    try:
        columns = columns_from_rows(part.rows.columns, bundle.schema, part.rows.count)
        try:
            return bundle.score(columns)
        except FeatureError:
            if refusal := _holes(bundle.schema, columns):
                raise refusal from None
            raise
    except Exception as error:
        raise Blamed(part.model, error) from error


def _holes(schema: FeatureSchema, columns: dict[str, Array]) -> RequestError | None:
    """Feature code that fails on a missing value where training never had one is not at fault: the request is."""
    empty = [c.name for c in schema.inputs if not c.nullable and missing(columns[c.name]).any()]
    if not empty:
        return None
    return RequestError(
        f"the value is missing in {', '.join(map(show, empty))}",
        expected="a value in every row: the model was trained without missing values there, and cannot do with them",
    )


def _merged(parts: Sequence[Part], scored: Sequence[Scored], ids: Sequence[str]) -> Answer:
    distinct = tuple(part.model.version for part in parts)
    if len(parts) == 1:
        return Answer(scored[0].predictions, list(distinct) * parts[0].rows.count, ids, distinct)
    scores = np.empty(len(ids), dtype=np.float64)
    versions = [""] * len(ids)
    for part, result in zip(parts, scored, strict=True):
        assert part.places is not None
        scores[part.places] = result.predictions
        for place in part.places:
            versions[place] = part.model.version
    return Answer(scores, versions, ids, distinct)
