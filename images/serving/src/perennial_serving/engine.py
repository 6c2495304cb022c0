"""Answering rows the general way: assignment to versions, typed columns, prediction, counting, and the entry in the log.

The order matters. All rows are typed before any is predicted, and nothing is counted or logged until all are: a request either
happened or did not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from perennial_features.bundle import Scores
from perennial_features.code import Array
from perennial_features.request import columns_from_rows
from perennial_features.schema import FeatureSchema, missing
from perennial_serving.answers import Answer
from perennial_serving.bodies import Body
from perennial_serving.counting import ServerCounters
from perennial_serving.entities import entity_keys
from perennial_serving.fleet import Served
from perennial_serving.ids import prediction_ids
from perennial_serving.intake import Intake
from perennial_serving.log_entries import Block, Noted, PredictionRows, sampled
from perennial_serving.model import LoadedModel, stored_key
from perennial_serving.model_process import ModelFailed
from perennial_serving.parts import Part, Predicted, check_form, merged, parts_of
from perennial_serving.prediction_log import PredictionLog
from perennial_serving.refusals import Overloaded, status_of
from perennial_serving.rows import Rows, show
from perennial_serving.scorer import Matrix, read_only
from perennial_serving.settings import Settings
from perennial_serving.shadows import Shadowed, Shadows
from perennial_spec.errors import FeatureError, PerennialError, RequestError

log = logging.getLogger(__name__)


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
class Answered:
    answer: Answer
    models: tuple[LoadedModel, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """Predictions as the log takes them."""

    ids: Sequence[str]
    keys: Sequence[str | None]
    """Entities."""
    scores: Scores


class Engine:
    """Answers rows for any pipeline."""

    def __init__(self, settings: Settings, counters: ServerCounters, prediction_log: PredictionLog | None) -> None:
        self._settings = settings
        self._counters = counters
        self._log = prediction_log
        self._pool = ThreadPoolExecutor(settings.predict_threads, thread_name_prefix="predict")
        self._rows = 0
        self.shadows = Shadows(self._shadowed, self._shadow_dropped)

    @property
    def rows_in_progress(self) -> int:
        """Rows that wait for a thread."""
        return self._rows

    def close(self) -> None:
        self.shadows.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def answer(self, served: Served, rows: Rows, version: str | None) -> Answered:
        """Scores for `rows`, by the versions of the route, or all by `version`.

        Raises:
            UnknownVersion: `version` is not loaded.
            Overloaded: too many rows are being predicted.
            Blamed: a version cannot answer; holds the reason.
        """
        parts = parts_of(served, rows, version)
        # Processes have bounds of their own: rows that wait for a slow one must not cost others their room.
        here = sum(part.rows.count for part in parts if part.model.process is None)
        if here and self._rows and self._rows + here > self._settings.max_inflight_rows:
            self._counters.shed[served.name] += 1
            raise Overloaded(
                f"{self._rows:,} rows are being predicted", expected="less at a time", next="try again in a moment"
            )
        self._rows += here
        try:
            predicted = (
                [await self._predict(parts[0])]
                if len(parts) == 1
                else await asyncio.gather(*(self._predict(part) for part in parts))
            )
        finally:
            self._rows -= here
        check_form(parts, predicted)
        ids: list[str] = [""] * rows.count
        for part, result in zip(parts, predicted, strict=True):
            self._record(part, result, ids)
        if version is None and served.shadows:
            keys = entity_keys(rows, served.first.entity) if served.first else [None] * rows.count
            body = Body("columns", {name: _plain(values) for name, values in rows.columns.items()}, rows.count)
            self.shadows.cast(served.shadows, [body], ids, keys)
        return Answered(merged(parts, predicted, ids), tuple(part.model for part in parts))

    async def _predict(self, part: Part) -> Predicted:
        model = part.model
        try:
            columns = columns_from_rows(part.rows.columns, model.schema, max(part.rows.count, 1))
            if model.process is not None:
                return Predicted(await model.process.predict(columns), None)
            if part.rows.count <= self._settings.inline_rows:
                return _scored(model, columns, part.rows.count)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, _scored, model, columns, part.rows.count)
        except Exception as error:
            if isinstance(error, Overloaded):
                self._counters.shed[model.pipeline] += 1
            raise Blamed(model, error) from error

    def _record(self, part: Part, predicted: Predicted, ids: list[str]) -> None:
        """Count and log an answer, and give its rows their ids."""
        model, scores = part.model, predicted.scores
        mine = prediction_ids(part.rows.count, model.mark)
        for place, id_ in zip(part.places or range(len(ids)), mine, strict=True):
            ids[place] = id_
        _count(model, predicted.matrix, scores)
        if self._log is not None:
            at = time.time_ns() // 1000
            keys = stored_keys(model, part.keys)
            entry = PredictionRows(mine, keys, model.version, scores, False, at, part.rows, model.logged)
            self._keep(model, entry)

    def log_typed(self, model: LoadedModel, columns: Mapping[str, Array], made: Made, shadow: bool = False) -> None:
        """Log rows whose columns are typed already."""
        if self._log is None or not self._log.room(model.pipeline, len(made.ids)):
            return
        kept = {name: columns[name] for name in model.logged if name in columns}
        at, keys = time.time_ns() // 1000, stored_keys(model, made.keys)
        self._keep(model, Block(list(made.ids), list(keys), model.version, made.scores, shadow, at, kept))

    def log_noted(self, model: LoadedModel, intake: Intake, labels: tuple[bytes | None, ...], made: Made) -> None:
        """Log rows in the words of the requests."""
        if self._log is None or not self._log.room(model.pipeline, len(made.ids)):
            return
        at, keys = time.time_ns() // 1000, stored_keys(model, made.keys)
        text, ends = intake.journal(len(made.ids))
        entry = Noted(list(made.ids), list(keys), model.version, made.scores, False, at, labels, text, ends)
        self._keep(model, entry)

    def _keep(self, model: LoadedModel, entry: Block | Noted | PredictionRows) -> None:
        """Log the share of the rows that the spec asks for."""
        assert self._log is not None
        mask = sampled(entry.ids, model.log_share)
        if mask is not None:
            self._log.sampled_out[model.pipeline] += len(mask) - int(mask.sum())
            if not mask.any():
                return
        self._log.predictions(model.pipeline, entry.kept(mask))

    def _shadowed(self, found: Shadowed) -> None:
        model, code = found.model, 200
        if found.error is not None:
            code = status_of(found.error) if isinstance(found.error, PerennialError) else 500
        else:
            assert found.scores is not None and found.columns is not None
            _count(model, found.matrix, found.scores)
            self.log_typed(model, found.columns, Made(found.ids, found.keys, found.scores), shadow=True)
        model.counters.request("shadow", code, found.seconds)

    def _shadow_dropped(self, model: LoadedModel, rows: int) -> None:
        self._counters.shadow_dropped[model.pipeline, model.version] += rows


def stored_keys(model: LoadedModel, keys: Sequence[str | None]) -> Sequence[str | None]:
    """Entities as the log may hold them."""
    if not model.entity_redacted:
        return keys
    return [key and stored_key(model.pipeline, key) for key in keys]


def describe_failure(blamed: Blamed) -> str:
    """What failed, without a word of what was sent: feature code puts values into its messages."""
    error = blamed.error
    if isinstance(error, ModelFailed):
        return f"version {blamed.model.version} of {blamed.model.pipeline} failed: {error.kind} at {error.where}"
    where = f" at {PurePath(error.where).name}" if isinstance(error, PerennialError) and error.where else ""
    cause = error.__cause__ or error
    return f"version {blamed.model.version} of {blamed.model.pipeline} failed: {type(cause).__name__}{where}"


def _count(model: LoadedModel, matrix: Matrix | None, scores: Scores) -> None:
    """Count rows that were predicted, and the bins of those that have any."""
    if matrix is not None:
        assert model.scorer is not None
        model.scorer.count(matrix, scores, model.counters.values)
    model.counters.predicted(len(scores))


def _scored(model: LoadedModel, columns: dict[str, Array], rows: int) -> Predicted:
    scorer = model.scorer
    assert scorer is not None
    try:
        matrix = scorer.matrix(read_only(columns), rows)
    except FeatureError:
        if refusal := _holes(model.schema, columns):
            raise refusal from None
        raise
    return Predicted(scorer.predict(matrix), matrix)


def _holes(schema: FeatureSchema, columns: Mapping[str, Array]) -> RequestError | None:
    """Feature code that fails on a missing value where training never had one is not at fault: the request is."""
    empty = [c.name for c in schema.inputs if not c.nullable and missing(columns[c.name]).any()]
    if not empty:
        return None
    return RequestError(
        f"the value is missing in {', '.join(map(show, empty))}",
        expected="a value in every row: the model was trained without missing values there, and cannot do with them",
    )


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
