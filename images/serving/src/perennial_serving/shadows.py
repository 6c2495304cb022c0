"""Shadow versions: they see the traffic and never answer.

One thread, after the answers, as far as it keeps up: what does not fit into its queue is left out and counted. A shadow that is slow or
broken costs nobody an answer. A shadow that answers in processes gets its typed rows from the thread, which does not wait for it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from perennial_features.bundle import Scores
from perennial_features.code import Array
from perennial_features.request import columns_from_rows
from perennial_serving.bodies import Body
from perennial_serving.intake import Intake
from perennial_serving.model import LoadedModel
from perennial_serving.model_process import ProcessModel
from perennial_serving.refusals import Overloaded, Refusal
from perennial_serving.scorer import Matrix, read_only
from perennial_spec.errors import RequestError

_MAX_ROWS = 4096
"""Rows that may wait for their shadow predictions."""
_MAX_ASKED = 8
"""Calls to a shadow's processes at a time: the rest waits here, and leaves their queue to who asks for the version by name."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What a shadow made of the rows of one turn, or why it made nothing."""

    model: LoadedModel
    ids: Sequence[str]
    """Of the answers that these predictions stand beside."""
    keys: Sequence[str | None]
    seconds: float
    error: Exception | None = None
    matrix: Matrix | None = None
    scores: Scores | None = None
    columns: Mapping[str, Array] | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    model: LoadedModel
    bodies: list[Body]
    ids: Sequence[str]
    keys: Sequence[str | None]


class Shadows:
    """The queue and its thread.

    Args:
        done: called on the event loop with each result.
        dropped: called on the event loop with the model and the number of rows that found no room.
    """

    def __init__(self, done: Callable[[Shadowed], None], dropped: Callable[[LoadedModel, int], None]) -> None:
        self._done, self._dropped = done, dropped
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._rows: WeakKeyDictionary[LoadedModel, int] = WeakKeyDictionary()
        """Rows that wait, by shadow: one that does not keep up must not cost another its rows."""
        self._asking: set[asyncio.Task[None]] = set()
        self._gates: WeakKeyDictionary[LoadedModel, asyncio.Semaphore] = WeakKeyDictionary()
        self._intakes: WeakKeyDictionary[LoadedModel, Intake] = WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def cast(
        self, models: Sequence[LoadedModel], bodies: list[Body], ids: Sequence[str], keys: Sequence[str | None]
    ) -> None:
        """Have each of `models` predict these rows, some time after now. On the event loop."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()
        for model in models:
            waiting = self._rows.get(model, 0) + len(ids)
            if waiting > _MAX_ROWS:
                self._dropped(model, len(ids))
                continue
            self._rows[model] = waiting
            self._queue.put(_Task(model, bodies, ids, keys))

    def close(self) -> None:
        """End after what is running."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(5)

    def _run(self) -> None:
        assert self._loop is not None
        while (task := self._queue.get()) is not None:
            try:
                if task.model.process is not None:
                    self._hand_over(task, task.model.process)
                    continue
                for found in self._predicted(task):
                    self._loop.call_soon_threadsafe(self._collect, found)
            except RuntimeError:  # the loop has ended
                return

    def _collect(self, found: Shadowed) -> None:
        self._release(found.model, len(found.ids))
        self._done(found)

    def _release(self, model: LoadedModel, rows: int) -> None:
        self._rows[model] -= rows

    # -- shadows in processes --

    def _hand_over(self, task: _Task, process: ProcessModel) -> None:
        """Type the rows in this thread, and have the process asked on the event loop."""
        assert self._loop is not None
        start = time.perf_counter()
        try:
            columns, kept = self._typed(task, len(task.ids))
        except Exception as error:
            if len(task.bodies) > 1:  # one bad row must not cost the others their shadow
                for single in _singly(task):
                    self._hand_over(single, process)
                return
            found = Shadowed(task.model, task.ids, task.keys, time.perf_counter() - start, error)
            self._loop.call_soon_threadsafe(self._collect, found)
            return
        copied = {name: values.copy() for name, values in columns.items()}  # the intake takes the next rows meanwhile
        self._loop.call_soon_threadsafe(self._ask, task, copied, kept, start)

    def _ask(self, task: _Task, columns: Mapping[str, Array], kept: Mapping[str, Array], start: float) -> None:
        asking = asyncio.get_running_loop().create_task(self._answered(task, columns, kept, start))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _answered(
        self, task: _Task, columns: Mapping[str, Array], kept: Mapping[str, Array], start: float
    ) -> None:
        model, ids, keys = task.model, task.ids, task.keys
        assert model.process is not None
        try:
            async with self._gates.setdefault(model, asyncio.Semaphore(_MAX_ASKED)):
                scores = await model.process.predict(columns)
        except Overloaded:
            self._release(model, len(ids))
            self._dropped(model, len(ids))
        except Exception as error:
            if len(task.bodies) > 1 and not isinstance(error, Refusal):  # its own failure, on some row: each by itself
                for single in _singly(task):
                    self._queue.put(single)
                return
            self._collect(Shadowed(model, ids, keys, time.perf_counter() - start, error))
        else:
            self._collect(Shadowed(model, ids, keys, time.perf_counter() - start, None, None, scores, kept))

    # -- shadows in this thread --

    def _predicted(self, task: _Task) -> list[Shadowed]:
        start = time.perf_counter()
        try:
            return [self._together(task, start)]
        except Exception as error:
            if len(task.bodies) == 1:
                return [Shadowed(task.model, task.ids, task.keys, time.perf_counter() - start, error)]
        # One bad row must not cost the others their shadow.
        return [found for single in _singly(task) for found in self._predicted(single)]

    def _together(self, task: _Task, start: float) -> Shadowed:
        rows = len(task.ids)
        columns, kept = self._typed(task, rows)
        scorer = task.model.scorer
        assert scorer is not None
        matrix = scorer.matrix(columns, rows)
        scores = scorer.predict(matrix)
        return Shadowed(task.model, task.ids, task.keys, time.perf_counter() - start, None, matrix, scores, kept)

    def _typed(self, task: _Task, rows: int) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        model = task.model
        intake = self._intakes.get(model)
        if intake is None:
            intake = self._intakes[model] = Intake(model.schema, model.entity, model.logged, _MAX_ROWS)
        at = 0
        for body in task.bodies:
            if not intake.take(body, at):
                break
            at += body.count
        if at == rows:
            return intake.typed(rows), {name: values.copy() for name, values in intake.kept(rows).items()}
        if len(task.bodies) > 1:
            raise RequestError("not plain", expected="one request at a time")
        columns = columns_from_rows(lists_of(task.bodies[0]), model.schema, rows)
        return read_only(columns), columns


def _singly(task: _Task) -> list[_Task]:
    """One task per request."""
    found, at = [], 0
    for body in task.bodies:
        part = slice(at, at + body.count)
        found.append(_Task(task.model, [body], task.ids[part], task.keys[part]))
        at += body.count
    return found


def lists_of(body: Body) -> dict[str, list[object]]:
    """A body as an object of lists."""
    if body.form == "columns":
        return dict(body.rows)
    if body.form == "split":
        assert body.layout is not None
        return {name: [row[place] for row in body.rows] for place, name in enumerate(body.layout.columns)}
    names = dict.fromkeys(name for row in body.rows for name in row)
    return {name: [row.get(name) for row in body.rows] for name in names}
