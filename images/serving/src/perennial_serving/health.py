"""The health query: every so often the server itself asks each routed version rows of its training, and compares the answers.

Health endpoints say that a process answers; this says that a version still answers as it did. The answers are counted nowhere else: not
among predictions, bins or requests, and not in the prediction log. A bundle is asked in a thread; a model in processes through its own
queue, as clients ask it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from perennial_features.bundle import close
from perennial_features.code import Array
from perennial_serving.engine import Blamed, describe_failure
from perennial_serving.fleet import Fleet, Healthy
from perennial_serving.model import LoadedModel
from perennial_serving.question import Question
from perennial_serving.refusals import Overloaded
from perennial_serving.scorer import read_only

log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
"""How soon a version that has come into the route is asked for the first time."""
Key = tuple[str, str]


class HealthQueries:
    """Asks the versions of `fleet`, and leaves there what came of it.

    Args:
        seconds: between two questions to one version; 0: none is asked.
    """

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        self._fleet, self._seconds = fleet, seconds
        self._due: dict[Key, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """On the event loop."""
        if self._seconds:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ask no more; an answer that is awaited is not."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ask(self, models: Mapping[Key, LoadedModel]) -> None:
        """Ask each of `models` once."""
        async with asyncio.TaskGroup() as in_processes:
            for key, model in models.items():
                if model.process is not None:
                    in_processes.create_task(self._asked(key, model))
            for key, model in models.items():
                if model.process is None:  # one after the other: between two of them the event loop has its turn
                    await self._asked(key, model)

    async def _run(self) -> None:
        while True:
            now, routed = time.monotonic(), dict(_routed(self._fleet))
            self._forget(routed)
            due = {key: model for key, model in routed.items() if self._due.get(key, now) <= now}
            self._due.update(dict.fromkeys(due, now + self._seconds))
            try:
                await self.ask(due)
            except Exception:  # the task must outlive whatever a model comes up with
                log.exception("the health query failed")
            await asyncio.sleep(min(_LOOK_SECONDS, self._seconds))

    def _forget(self, routed: Mapping[Key, LoadedModel]) -> None:
        """Versions that have left the route."""
        for key in self._due.keys() - routed.keys():
            del self._due[key]
        if self._fleet.health.keys() - routed.keys():
            self._fleet.health = {key: found for key, found in self._fleet.health.items() if key in routed}

    async def _asked(self, key: Key, model: LoadedModel) -> None:
        start = time.perf_counter()
        try:
            wrong = await _wrong(model)
        except Overloaded:  # it is busy with clients, who get answers: that is no news
            return
        except Exception as error:  # whose words may quote a row
            wrong = describe_failure(Blamed(model, error)).partition(" failed: ")[2]
        found = Healthy(not wrong, time.perf_counter() - start)
        before = self._fleet.health.get(key)
        self._fleet.health = {**self._fleet.health, key: found}
        _tell(key, before, found, wrong)


def _routed(fleet: Fleet) -> Iterator[tuple[Key, LoadedModel]]:
    """Versions that are loaded and in the route, with something to ask them."""
    for name, served in fleet.served.items():
        for version in dict.fromkeys((*served.route.weights, *served.route.shadow)):
            model = served.models.get(version)
            if model is not None and model.question is not None:
                yield (name, version), model


async def _wrong(model: LoadedModel) -> str:
    """What is wrong with the answer; "" when it is as it should be."""
    question = model.question
    assert question is not None
    if model.process is not None:
        answer = await model.process.ask(question.columns)
        return _differs_in_form(answer, question.answer)
    answer = await asyncio.to_thread(_answer, model, question)
    wrong = _differs_in_form(answer, question.answer)
    if wrong or close(answer, question.answer):
        return wrong
    worst = float(np.max(np.abs(answer - question.answer)))
    return f"it answers its own training rows differently now (by up to {worst:.3g})"


def _answer(model: LoadedModel, question: Question) -> Array:
    scorer = model.scorer
    assert scorer is not None
    return scorer.predict(scorer.matrix(read_only(question.columns), len(question.answer)))


def _differs_in_form(answer: Array, expected: Array) -> str:
    if (answer.shape, answer.dtype.kind) != (expected.shape, expected.dtype.kind):
        return f"its answer has another form: {answer.dtype}{list(answer.shape)}"
    if answer.dtype.kind == "f" and not np.isfinite(answer).all():
        return "its answer is not finite"
    return ""


def _tell(key: Key, before: Healthy | None, now: Healthy, wrong: str) -> None:
    """A line when it changes; what stays as it is only for those who look closely."""
    told: Any = log.debug
    if now.up and before is not None and not before.up:
        told = log.info
    elif not now.up and (before is None or before.up):
        told = log.warning
    outcome = "answers its health query" if now.up else f"fails its health query: {wrong}"
    told("version %s of %s %s (%.1f ms)", key[1], key[0], outcome, now.seconds * 1e3)
