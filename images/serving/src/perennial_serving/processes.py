"""The models in processes of one server: started from the threads that load versions, ended with their versions, or with the server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from perennial_serving.model_process import ProcessModel
from perennial_spec.errors import ModelError

_LOOK_SECONDS = 1.0
"""How soon a thread that waits for a start notices that the event loop is gone."""


class Processes:
    """`bind` and `close` belong to the event loop, and all processes with it; `start` and `end` to any other thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._models: set[ProcessModel] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def bind(self) -> None:
        """Processes belong to the running event loop."""
        self._loop = asyncio.get_running_loop()

    def start(self, model: ProcessModel) -> None:
        """Start the model's processes, and wait until they answer.

        Raises:
            ModelError: they do not, or the server ends.
        """
        assert self._loop is not None
        started: Future[None] = asyncio.run_coroutine_threadsafe(self._start(model), self._loop)
        while not started.done():
            try:
                started.result(_LOOK_SECONDS)
            except TimeoutError:
                if self._loop.is_closed():
                    raise ModelError("the server ends") from None
        started.result()

    def end(self, model: ProcessModel) -> None:
        """End the model's processes, some time after now, when they have answered what waits."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._run, self._end(model))

    async def close(self) -> None:
        """End all of them, and whatever is being started or answered: after the last answer to a client."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(model.close(0.0) for model in self._models))

    async def _start(self, model: ProcessModel) -> None:
        if self._closed:
            raise ModelError("the server ends")
        task = self._run(model.start())
        try:
            await task
        except asyncio.CancelledError:
            raise ModelError("the server ends") from None
        self._models.add(model)

    async def _end(self, model: ProcessModel) -> None:
        await model.close()
        self._models.discard(model)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
