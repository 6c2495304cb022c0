"""What moves the answers of each version, on a sample of what was asked: TreeSHAP, round by round, for Prometheus to compare with training.

No answer waits for it: rows are copied where they were drawn (see `sample`), and explained by a process that runs only when nothing else
wants the processor. It is started for each round and ends with it, so that XGBoost takes no memory in between. What it cannot explain is
counted and left out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from contextlib import suppress

import numpy as np

from perennial_serving.child import Child, ChildEnded, ChildFailed, ChildOverran, Launch
from perennial_serving.explain import WORKER
from perennial_serving.fleet import Fleet
from perennial_serving.model import LoadedModel
from perennial_serving.scorer import Matrix

log = logging.getLogger(__name__)
_PATIENCE = 600.0
"""Seconds for one version's rows: where the processor is always wanted, the process gets little of it."""


class Attributions:
    """All methods belong to one event loop.

    Args:
        fleet: whose versions are explained, as far as they have a sample.
        seconds: between two rounds; the first of each process comes at a random moment, so that workers do not go in step.
    """

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        self._fleet, self._seconds = fleet, seconds
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""

    def start(self) -> None:
        """Begin with the rounds."""
        self._task = asyncio.get_running_loop().create_task(self._rounds())

    async def stop(self) -> None:
        """End now; rows that were not explained are left out."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _rounds(self) -> None:
        await asyncio.sleep(self._seconds * random.random())  # noqa: S311 (nothing secret)
        while True:
            try:
                await self._round()
            except Exception:  # a round that fails must not be the last
                log.exception("attributions: a round failed")
            await asyncio.sleep(self._seconds)

    async def _round(self) -> None:
        samples = [(model, rows) for model, rows in self._samples() if len(rows)]
        if not samples:
            return
        try:
            child = await _idle_child()
        except OSError as error:
            for model, rows in samples:
                model.counters.unexplained(len(rows))
            self._tell(f"no attributions, because no process can be started: {error}")
            return
        try:
            for model, rows in samples:
                await self._explain(child, model, rows)
        finally:
            await child.kill()

    def _samples(self) -> list[tuple[LoadedModel, Matrix]]:
        models = [model for served in self._fleet.served.values() for model in served.models.values()]
        return [(model, model.scorer.sample.take()) for model in models if model.scorer and model.scorer.sample]

    async def _explain(self, child: Child, model: LoadedModel, rows: Matrix) -> None:
        finite: Matrix = rows[~np.isinf(rows).any(axis=1)]  # XGBoost refuses all rows for one that is infinite
        if not len(finite):
            model.counters.unexplained(len(rows))
            return
        try:
            _, found = await child.call({"folder": str(model.folder)}, {"matrix": finite}, _PATIENCE)
        except (ChildFailed, ChildEnded, ChildOverran) as error:
            model.counters.unexplained(len(rows))
            # What fails may quote what was sent, which is for no log.
            why = f"{error.kind} at {error.where}" if isinstance(error, ChildFailed) else str(error)
            self._tell(f"no attributions for version {model.version} of {model.pipeline}: {why}")
            return
        contributions = found["contributions"]
        contributions = contributions[np.isfinite(contributions).all(axis=1)]
        model.counters.explained(contributions, len(rows) - len(contributions))

    def _tell(self, trouble: str) -> None:
        """Once, and not with every round."""
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble


async def _idle_child() -> Child:
    """A process that runs when no other wants the processor, from its first moment on.

    Raises:
        OSError: it cannot be started.
    """
    child = await Child.start(Launch(WORKER))
    with suppress(OSError, AttributeError):  # it has ended, or this is no Linux
        os.sched_setscheduler(child.pid, os.SCHED_IDLE, os.sched_param(0))
    return child
