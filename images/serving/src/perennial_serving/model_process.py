"""A model version that answers in processes of its own, so that a slow or crashing one holds up nobody else.

    predict -> waiting calls -> (one runner per process: joins what waits) -> child -> split again -> answers

Calls that wait while a process is busy are joined into one when it is free again: a model is taken to answer each row by itself. A
process that overruns its time or crashes fails the calls that it was answering, and is started anew, after a pause that grows while it
keeps failing; calls that wait meanwhile are answered then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from perennial_features.code import Array
from perennial_features.schema import FeatureSchema
from perennial_serving.calls import Call, Calls, answer, fail, joined
from perennial_serving.child import Child, ChildEnded, ChildFailed, ChildOverran, Launch, TooSlow
from perennial_serving.question import EXAMPLE, Question
from perennial_serving.refusals import NotReady, Refusal
from perennial_serving.signature import Signature
from perennial_spec.errors import ModelError, PerennialError

log = logging.getLogger(__name__)
_MODULE = "perennial_serving.model_worker"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LOOK_SECONDS = 1.0
"""How soon a process that ended without a call is noticed."""
_SHARE_OF_TIMEOUT = 0.25
"""Joined calls are expected to take at most this share of the time limit: no request overruns for the company it is in."""


class ProcessSettings(Protocol):
    """What is read of the server's settings."""

    @property
    def pyfunc_workers(self) -> int:
        """Processes per version."""

    @property
    def pyfunc_queue(self) -> int:
        """Requests that may wait per version; more are answered with 503."""

    @property
    def pyfunc_timeout_seconds(self) -> float:
        """A prediction that takes longer is given up, and its process killed; so is a wait for a free process."""

    @property
    def pyfunc_memory_bytes(self) -> int:
        """Address space of one process; 0 for any."""

    @property
    def pyfunc_environment(self) -> tuple[str, ...]:
        """Environment variables that models get beside the harmless ones."""

    @property
    def load_timeout_seconds(self) -> float:
        """Time for a version to load."""

    @property
    def pyfunc_batch_rows(self) -> int:
        """Rows of waiting requests that are joined into one prediction."""

    @property
    def max_inflight_rows(self) -> int:
        """Rows that may wait, whatever the number of requests."""


class ModelFailed(PerennialError):
    """The model raised. What it said may quote the request, and is left out."""

    def __init__(self, kind: str, where: str) -> None:
        super().__init__(f"the model raised {kind}", where=where)
        self.kind = kind


class ProcessModel:
    """An MLflow model in `pyfunc_workers` processes. All methods belong to one event loop."""

    def __init__(self, folder: Path, signature: Signature, settings: ProcessSettings) -> None:
        self._folder, self._signature, self._settings = folder, signature, settings
        self.schema: FeatureSchema = signature.schema
        self.outputs, self.text = signature.outputs or 1, signature.text
        """Values per row, and whether they are text: as the example was answered, or else as the signature says."""
        bounds = settings.pyfunc_queue, settings.max_inflight_rows, settings.pyfunc_timeout_seconds
        self._calls = Calls(*bounds)
        self._runners: list[asyncio.Task[None]] = []
        self._children: dict[int, Child] = {}
        self.question: Question | None = None
        """The first row of its example, if it has one, and the answer at the last start."""
        self._broken = False
        """No process answers, and none can be started."""
        self._row_seconds = 0.0

    @property
    def pids(self) -> list[int]:
        """Processes that answer at present."""
        return [child.pid for child in self._children.values()]

    async def start(self) -> None:
        """Start the processes, and have the model answer its example.

        Raises:
            ModelError: it does not load in time, or does not answer its example.
        """
        count = max(1, self._settings.pyfunc_workers)
        started = await asyncio.gather(*(self._load() for _ in range(count)), return_exceptions=True)
        failed = [each for each in started if isinstance(each, BaseException)]
        if failed:
            await asyncio.gather(*(each.kill() for each in started if isinstance(each, Child)))
            raise failed[0]
        self._children = {place: each for place, each in enumerate(started) if isinstance(each, Child)}
        self._runners = [asyncio.create_task(self._run(place)) for place in self._children]

    async def predict(self, columns: Mapping[str, Array]) -> Array:
        """float64[rows], float64[rows, outputs], or object[rows] of text.

        Args:
            columns: typed columns, as `columns_from_rows` makes them by `schema`.

        Raises:
            RequestError: the model cannot take a value; names the column.
            Overloaded: too many requests wait, or this one waited for too long.
            NotReady: the process has crashed, or cannot be started.
            TooSlow: the model took too long.
            ModelFailed: the model raised.
        """
        return await self.ask(self._signature.typed(columns))

    async def ask(self, columns: dict[str, Array]) -> Array:
        """As `predict`, with columns of the signature's own types."""
        if self._calls.ended or not self._runners:
            raise NotReady("the version is being unloaded", next="try again")
        if self._broken:
            raise _unavailable()
        return await self._calls.ask(columns, len(next(iter(columns.values()))))

    async def close(self, seconds: float | None = None) -> None:
        """Answer what waits, within `seconds` or the time that one prediction may take, and end the processes."""
        self._calls.end()
        if self._runners:
            limit = self._settings.pyfunc_timeout_seconds if seconds is None else seconds
            _, late = await asyncio.wait(self._runners, timeout=limit)
            for runner in late:
                runner.cancel()
            await asyncio.gather(*self._runners, return_exceptions=True)
        self._calls.fail(NotReady("the version is being unloaded", next="try again"))
        await asyncio.gather(*(child.close() for child in self._children.values()))
        self._children.clear()

    # -- one runner per process --

    async def _run(self, place: int) -> None:
        """Answer what waits with the process at `place`, and see to it that there is one, until the end."""
        failures = 0
        while len(self._calls) or not self._calls.ended:
            child = self._children.get(place)
            if child is None:
                failures += 1
                await self._calls.pause(_pause(failures))
                await self._restart(place)
                continue
            batch = await self._calls.take(self._most_rows(), _LOOK_SECONDS)
            if not child.alive:
                log.warning("a process for %s has ended, and is started anew", self._folder.name)
                self._calls.put_back(batch)
            elif not batch:
                continue
            elif await self._answer(child, batch):
                failures = 0
                continue
            await self._children.pop(place).close()

    async def _restart(self, place: int) -> None:
        """A new process at `place`. When it does not start, nobody is kept waiting while no other answers."""
        try:
            self._children[place] = await self._load()
        except Exception as error:  # the runner must outlive whatever starting comes up with
            log.warning("a process for %s does not start: %s", self._folder.name, error)
            if not self._children:
                self._broken = True
                self._calls.fail(_unavailable())
            return
        self._broken = False

    async def _load(self) -> Child:
        launch = Launch(_MODULE, self._settings.pyfunc_memory_bytes, self._settings.pyfunc_environment)
        child = await Child.start(launch)
        request = {"load": str(self._folder), "signature": self._signature.to_json()}
        seconds = self._settings.load_timeout_seconds
        try:
            _, found = await child.call(request, {}, seconds)
        except ChildOverran:
            raise ModelError(f"loading takes longer than {seconds:g} s", where=self._folder.name) from None
        except ChildEnded as ended:
            raise ModelError(f"the process that loads the model ended: {ended}", where=self._folder.name) from None
        except ChildFailed as failure:
            await child.kill()
            raise _not_loaded(failure) from None
        except asyncio.CancelledError:
            await asyncio.shield(child.kill())
            raise
        if "predictions" in found:
            answered = found["predictions"]
            first = {name.removeprefix(EXAMPLE): values for name, values in found.items() if name.startswith(EXAMPLE)}
            self.question = Question(first, answered[:1])
            self.outputs, self.text = answered.shape[1] if answered.ndim == 2 else 1, answered.dtype.kind == "O"
        return child

    def _most_rows(self) -> int:
        if not self._row_seconds:
            return 0  # one request by itself, until it is known how fast the model is
        expected = _SHARE_OF_TIMEOUT * self._settings.pyfunc_timeout_seconds / self._row_seconds
        return int(min(self._settings.pyfunc_batch_rows, expected))

    async def _answer(self, child: Child, batch: Sequence[Call]) -> bool:
        """Answer the calls; False when the process is gone."""
        rows = sum(call.rows for call in batch)
        start = time.perf_counter()
        try:
            _, found = await child.call({"rows": rows}, joined(batch), self._settings.pyfunc_timeout_seconds)
            predictions = _checked(found, rows)
        except ChildFailed as failure:
            return await self._one_by_one(child, batch, failure)
        except (ChildOverran, ChildEnded) as error:
            log.warning("a process for %s is started anew: %s", self._folder.name, error)
            fail(batch, _interrupted(error))
            return False
        except Exception as error:  # our own fault: these calls fail, and the next are answered
            await child.kill()
            fail(batch, error)
            return False
        self._row_seconds = 0.7 * self._row_seconds + 0.3 * (time.perf_counter() - start) / max(rows, 1)
        answer(batch, predictions)
        return True

    async def _one_by_one(self, child: Child, batch: Sequence[Call], failure: ChildFailed) -> bool:
        """One request that a model fails on must not fail those that it was joined with."""
        if len(batch) == 1:
            refusal = self._signature.refusal(batch[0].columns)
            batch[0].fail(refusal or _failed(failure))
            return True
        for place, call in enumerate(batch):
            if not await self._answer(child, [call]):
                self._calls.put_back(batch[place + 1 :])
                return False
        return True


def _checked(found: Mapping[str, Array], rows: int) -> Array:
    predictions = found.get("predictions")
    if predictions is None or predictions.ndim not in (1, 2) or len(predictions) != rows:
        raise ChildEnded("it answered what is no answer")
    return predictions


def _pause(failures: int) -> float:
    return min(_FIRST_PAUSE * 2 ** (failures - 2), _LONGEST_PAUSE) if failures > 1 else 0.0


def _unavailable() -> NotReady:
    return NotReady("the version's process does not start at present", next="see the server's log, and try again")


def _interrupted(error: Exception) -> Refusal:
    if isinstance(error, ChildOverran):
        return TooSlow(f"the model took too long: {error}", next="send fewer rows at a time, or try again")
    return NotReady(f"the process that answered ended: {error}; it is started anew", next="try again")


def _failed(failure: ChildFailed) -> PerennialError:
    if failure.kind == "ModelError":  # ours: says what the answer was instead of one, and nothing of the request
        return ModelError(failure.what, expected=failure.expected)
    return ModelFailed(failure.kind, failure.where)


def _not_loaded(failure: ChildFailed) -> ModelError:
    if failure.kind == "ModelError":
        return ModelError(failure.what, where=failure.where, expected=failure.expected, next=failure.next)
    next = "install what the model needs beside the server; requirements.txt in its folder lists it"
    return ModelError(
        f"the model does not load: {failure.kind}: {failure.what[:300]}",
        where=failure.where,
        next=next if failure.kind in ("ModuleNotFoundError", "ImportError") else "",
    )
