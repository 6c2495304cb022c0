"""Plain predictions: those that came in within one turn of the event loop are predicted together.

No request waits for another: the batch is what has already arrived. Whatever is not plain (a value to be converted, a wrong field, rows for
several versions, feature code that fails) goes the general way, one request at a time, and is answered or explained there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import orjson

from perennial_features.bundle import Scores
from perennial_serving.auth import Keys
from perennial_serving.bodies import Bodies, Body, Layout, scoring, tensors
from perennial_serving.connection import Connection, Plain
from perennial_serving.engine import Engine, Made
from perennial_serving.entities import entity_key
from perennial_serving.fleet import Fleet, Served
from perennial_serving.ids import prediction_ids
from perennial_serving.intake import Intake
from perennial_serving.model import LoadedModel
from perennial_serving.settings import Settings
from perennial_spec.errors import RequestError

log = logging.getLogger(__name__)
_MAX_PATHS = 1024
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_NO_ID = b""


class Asked(NamedTuple):
    """A plain request that came in."""

    connection: Connection
    data: bytes
    served: Served
    began: float
    oip: bool


class Job(NamedTuple):
    """A plain request whose rows are in the batch."""

    connection: Connection
    data: bytes
    began: float
    oip: bool
    request_id: str | None
    first: int
    end: int
    """Its rows in the batch: first to end - 1."""
    body: Body | None
    """Kept only where shadows are to see it too."""


class Batch:
    """The rows for one version in this turn."""

    __slots__ = ("intake", "jobs", "labels", "model", "noted", "rows", "served")

    def __init__(self, model: LoadedModel, intake: Intake) -> None:
        self.model, self.intake = model, intake
        self.served: Served | None = None
        self.jobs: list[Job] = []
        self.rows = 0
        self.noted = 0
        """Rows whose own text is in the intake's journal, from the first on, all with the columns of `labels`."""
        self.labels: tuple[bytes | None, ...] | None = None


class Turns:
    """Takes plain requests from all connections, and answers them at the end of the turn."""

    def __init__(self, fleet: Fleet, engine: Engine, settings: Settings, keys: Keys | None) -> None:
        self._fleet, self._engine, self._settings, self._keys = fleet, engine, settings, keys
        self._bodies = Bodies()
        self._paths: dict[bytes, tuple[str, bool]] = {}
        self._open: dict[LoadedModel, Batch] = {}
        """Batches with rows, in this turn."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def take(self, connection: Connection, data: bytes, plain: Plain) -> bool:
        """See `connection.Ready`."""
        began = perf_counter()
        path, at, bearer, key = plain
        named = self._paths.get(path) or self._path(path)
        if named is None or (self._keys is not None and not self._keys.allow(bearer, key)):
            return False
        name, oip = named
        served = self._fleet.served.get(name) if name else self._only()
        if served is None or not served.plain or self._fleet.draining:
            return False
        asked = Asked(connection, data, served, began, oip)
        if served.sole is not None and not oip and not served.shadows:
            found = self._bodies.layout(data, at)
            if found is not None:
                return self._take_text(asked, served.sole, *found)
        assert served.first is not None
        body = tensors(data[at:], served.first.kinds) if oip else scoring(data[at:])
        return body is not None and self._take_body(asked, body)

    def _take_text(self, asked: Asked, model: LoadedModel, layout: Layout, at: int) -> bool:
        """Rows for the only version, from the text that begins at data[at] into its columns."""
        batch = self._open.get(model) or self._batch(asked.served, model)
        if batch is None:
            return False
        first = batch.rows
        targets, absent, labels = layout.plan(batch.intake)
        count = batch.intake.split_text(targets, absent, asked.data, at, first)
        if count < 0 and first:
            self._run(batch)
            first, count = 0, batch.intake.split_text(targets, absent, asked.data, at, 0)
        if not 0 < count <= self._settings.inline_rows:
            return False
        batch.rows = end = first + count
        if batch.labels is labels or not first:
            batch.labels, batch.noted = labels, end
        batch.jobs.append(Job(asked.connection, asked.data, asked.began, False, None, first, end, None))
        return True

    def _take_body(self, asked: Asked, body: Body) -> bool:
        """Rows for the version that the route gives them to."""
        served = asked.served
        model = served.sole or _version_of(body, served)
        if model is None or body.count > self._settings.inline_rows:
            return False
        batch = self._open.get(model) or self._batch(served, model)
        if batch is None:
            return False
        if batch.rows + body.count > batch.intake.capacity:
            self._run(batch)
        if not batch.intake.take(body, batch.rows):
            return False
        first, batch.rows = batch.rows, batch.rows + body.count
        kept = body if served.shadows else None
        connection, data, _, began, oip = asked
        batch.jobs.append(Job(connection, data, began, oip, body.request_id, first, batch.rows, kept))
        return True

    def _batch(self, served: Served, model: LoadedModel) -> Batch | None:
        """A new batch for this turn; None where every request goes the general way."""
        if model.intake is None:
            return None
        if not self._open:
            self._loop = self._loop or asyncio.get_running_loop()
            self._loop.call_soon(self._turn)
        batch = self._open[model] = Batch(model, model.intake)
        batch.served = served
        return batch

    def _path(self, path: bytes) -> tuple[str, bool] | None:
        """The pipeline that a path names, "" for the only one; and whether it is spoken to in the Open Inference Protocol."""
        parts = path.decode("latin-1").split("/")
        found = None
        if parts == ["", "invocations"]:
            found = "", False
        elif len(parts) == 4 and parts[1] == "pipelines" and parts[3] == "invocations":
            found = parts[2], False
        elif len(parts) == 5 and parts[1:3] == ["v2", "models"] and parts[4] == "infer":
            found = parts[3], True
        if found is not None and len(self._paths) < _MAX_PATHS:
            self._paths[path] = found
        return found

    def _only(self) -> Served | None:
        served = self._fleet.served
        if len(served) == 1:
            for found in served.values():
                return found
        return None

    # -- the end of the turn --

    def _turn(self) -> None:
        batches, self._open = self._open, {}
        for batch in batches.values():
            self._run(batch)

    def _run(self, batch: Batch) -> None:
        """Answer what is in the batch, and empty it."""
        jobs = batch.jobs
        if not jobs:
            return
        try:
            answers = self._answers(batch)
        except Exception:  # of a row, or of the version: each request finds out for itself, and is told
            answers = []
        batch.jobs, batch.rows, batch.noted = (
            [],
            0,
            0,
        )  # before anything is written: an answered connection may have its next request here already
        if not answers:
            for job in jobs:
                job.connection.general(job.data)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.connection.answer(answer)
        _count(batch.model, jobs)

    def _answers(self, batch: Batch) -> list[bytes]:
        model, rows, intake = batch.model, batch.rows, batch.intake
        scorer = model.scorer
        assert scorer is not None  # it has an intake
        keys = _keys_of(intake.keys(rows))
        matrix = scorer.matrix(intake.typed(rows), rows)
        scores = scorer.predict(matrix)
        ids = prediction_ids(rows, model.mark)
        answers = _answers(model, batch.jobs, scores, ids)
        scorer.count(matrix, scores, model.counters.values)
        model.counters.predicted(rows)
        made = Made(ids, keys, scores)
        if batch.noted == rows and batch.labels is not None:
            self._engine.log_noted(model, intake, batch.labels, made)
        else:
            self._engine.log_typed(model, intake.kept(rows), made)
        assert batch.served is not None
        if batch.served.shadows:
            bodies = [job.body for job in batch.jobs if job.body is not None]
            self._engine.shadows.cast(batch.served.shadows, bodies, ids, keys)
        return answers


def _count(model: LoadedModel, jobs: Sequence[Job]) -> None:
    """Count the requests that `model` has answered."""
    end = perf_counter()
    oip = [end - job.began for job in jobs if job.oip]
    if oip:
        model.counters.requests("oip", 200, oip)
    if len(oip) < len(jobs):
        model.counters.requests("mlflow", 200, [end - job.began for job in jobs if not job.oip])


def _keys_of(values: list[object]) -> list[str | None]:
    """Entities as keys.

    Raises:
        RequestError: one of them cannot be a key.
    """
    return [value if type(value) is str and 0 < len(value) <= 512 else entity_key(value, "") for value in values]


def _version_of(body: Body, served: Served) -> LoadedModel | None:
    """The version that all rows of a request go to; None when there are several, or when that takes a closer look."""
    assert served.first is not None
    entity = served.first.entity
    try:
        values: Sequence[object]
        if body.form == "split":
            assert body.layout is not None
            place = body.layout.place(entity)
            values = [row[place] if place >= 0 else None for row in body.rows]
        elif body.form == "records":
            values = [row.get(entity) for row in body.rows]
        else:
            values = body.rows.get(entity) or [None] * body.count
        assigned = served.assign(_keys_of(list(values)))
        versions = {assigned} if isinstance(assigned, str) else set(assigned)
    except (RequestError, AttributeError, IndexError, TypeError):
        return None
    return served.models[versions.pop()] if len(versions) == 1 else None


def _answers(model: LoadedModel, jobs: Sequence[Job], scores: Scores, ids: list[str]) -> list[bytes]:
    """The whole responses. The texts of all scores are made in one call."""
    texts = orjson.dumps(scores, option=_NUMPY)[1:-1].split(b",")
    found = []
    one, body_of_one = model.head_of_one, model.body_of_one
    for _, _, _, oip, request_id, first, end, _ in jobs:
        if end - first == 1 and not oip:
            id_ = ids[first].encode()
            body = body_of_one % (texts[first], id_)
            found.append(one % (id_, len(body), body))
            continue
        count, joined = end - first, b",".join(texts[first:end])
        quoted = ('"' + '","'.join(ids[first:end]) + '"').encode()
        versions = b",".join([model.quoted_version] * count)
        if oip:
            known = _NO_ID if request_id is None else b'"id":%b,' % orjson.dumps(request_id)
            body = model.oip_body % (known, count, joined, count, versions, count, quoted)
        else:
            body = b'{"predictions":[%b],"version":[%b],"prediction_id":[%b]}' % (joined, versions, quoted)
        if count == 1:
            found.append(one % (ids[first].encode(), len(body), body))
        else:
            found.append(model.head_of_many % (len(body), body))
    return found
