"""How much each feature moved each prediction: TreeSHAP, by XGBoost, in a process of its own.

The server answers from flattened trees and never imports XGBoost. Explanations are asked for seldom: their process starts with the first
one, and ends when none was asked for in a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from perennial_features.code import Array
from perennial_serving.child import Child, ChildEnded, ChildFailed, ChildOverran, Launch, TooSlow
from perennial_serving.refusals import NotReady, Overloaded, TooLarge
from perennial_spec.errors import ModelError, RequestError

WORKER = "perennial_serving.explain_worker"
"""The module of the process."""
_MOST_WAITING = 32


class ExplainSettings(Protocol):
    """What is read of the server's settings."""

    @property
    def explain_idle_seconds(self) -> float:
        """The process ends when nothing was explained for so long."""

    @property
    def explain_timeout_seconds(self) -> float:
        """An explanation that takes longer is given up."""

    @property
    def max_explain_rows(self) -> int:
        """Rows per request; more are answered with 413."""


@dataclass(frozen=True)
class Explained:
    """base + the sum of a row's contributions = what the trees add up to, before it is made a probability or a count."""

    base: Array
    """float64[rows]: the model's answer when nothing is known of the row."""
    contributions: Array
    """float64[rows, features]."""
    space: str
    """The unit of both: `log-odds`, `log`, `score` (of a ranker), or `value`."""

    def to_json(self, name: str, version: str, features: Sequence[str]) -> dict[str, Any]:
        """The answer to a request, for orjson."""
        return {
            "model_name": name,
            "model_version": version,
            "space": self.space,
            "base": self.base,
            "contributions": [dict(zip(features, row, strict=True)) for row in self.contributions.tolist()],
        }


class Explainer:
    """The server's one process for explanations. All methods belong to one event loop."""

    def __init__(self, settings: ExplainSettings) -> None:
        self._settings = settings
        self._child: Child | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._closed = False
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._child.pid if self._child else None

    async def explain(self, folder: Path, matrix: Array) -> Explained:
        """Explain the predictions of the bundle in `folder`.

        Args:
            folder: of the bundle, with XGBoost's own file.
            matrix: float32[rows, features], as the model sees them.

        Raises:
            TooLarge: more than `max_explain_rows`.
            Overloaded: too many requests wait.
            NotReady: the process crashed, or the server ends.
            TooSlow: it takes too long.
            RequestError: the model has several values per row.
            ModelError: XGBoost cannot explain it.
        """
        if len(matrix) > self._settings.max_explain_rows:
            raise TooLarge(
                f"the request has {len(matrix):,} rows",
                expected=f"at most {self._settings.max_explain_rows:,} to explain",
                next="send it in parts",
            )
        if self._closed:
            raise NotReady("the server ends", next="try again")
        if self._waiting >= _MOST_WAITING:
            raise Overloaded(f"{self._waiting} requests wait for explanations", next="try again in a moment")
        # A task of its own: a client that goes away must not leave an answer on the line for the next one.
        task = asyncio.create_task(self._explain(folder, matrix))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what was asked for, and end the process."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.explain_timeout_seconds)
        await self._end()

    async def _explain(self, folder: Path, matrix: Array) -> Explained:
        self._waiting += 1
        try:
            async with self._turn:
                if self._idle is not None:
                    self._idle.cancel()
                try:
                    return await self._ask(folder, matrix)
                finally:
                    loop = asyncio.get_running_loop()
                    self._idle = loop.call_later(self._settings.explain_idle_seconds, self._rest)
        finally:
            self._waiting -= 1

    async def _ask(self, folder: Path, matrix: Array) -> Explained:
        if self._child is not None and not self._child.alive:
            await self._drop()
        if self._child is None:
            self._child = await Child.start(Launch(WORKER))
        try:
            head, found = await self._child.call(
                {"folder": str(folder)},
                {"matrix": np.ascontiguousarray(matrix, dtype=np.float32)},
                self._settings.explain_timeout_seconds,
            )
        except ChildFailed as failure:
            kind = RequestError if failure.kind == "RequestError" else ModelError
            raise kind(failure.what, where=failure.where, expected=failure.expected, next=failure.next) from None
        except ChildOverran as error:
            await self._drop()
            raise TooSlow(f"the explanation took too long: {error}", next="send fewer rows at a time") from None
        except ChildEnded as error:
            await self._drop()
            raise NotReady(f"the process that explains ended: {error}", next="try again") from None
        return Explained(found["base"], found["contributions"], head["space"])

    def _rest(self) -> None:
        self._idle = None
        task = asyncio.get_running_loop().create_task(self._end())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        async with self._turn:
            if self._idle is None or self._closed:  # else something was asked for in the meantime
                await self._drop()

    async def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()
