"""Requests that wait for a process that answers for a model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from perennial_features.code import Array
from perennial_serving.refusals import Overloaded


@dataclass(eq=False)
class Call:
    """One request's rows, and where their answer goes."""

    columns: dict[str, Array]
    rows: int
    answer: asyncio.Future[Array]
    form: tuple[tuple[str, str], ...] = field(init=False)
    """Names and dtypes: calls of one form can be joined."""

    def __post_init__(self) -> None:
        self.form = tuple((name, values.dtype.str) for name, values in self.columns.items())

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Calls:
    """Calls in the order of their arrival: at most `most` of them, with `most_rows` rows together, none for longer than `seconds`."""

    def __init__(self, most: int, most_rows: int, seconds: float) -> None:
        self._most, self._most_rows, self._seconds = most, most_rows, seconds
        self._waiting: deque[Call] = deque()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, columns: dict[str, Array], rows: int) -> Array:
        """Wait for the answer.

        Raises:
            Overloaded: too many wait, or this one waited for too long.
            Exception: what the call was failed with.
        """
        ahead = sum(call.rows for call in self._waiting)
        if len(self._waiting) >= self._most or (ahead and ahead + rows > self._most_rows):
            raise Overloaded(
                f"{len(self._waiting)} requests with {ahead:,} rows wait for this version",
                expected="less at a time",
                next="try again in a moment",
            )
        loop = asyncio.get_running_loop()
        call = Call(columns, rows, loop.create_future())
        self._waiting.append(call)
        self._changed.set()
        timer = loop.call_later(self._seconds, self._expire, call)
        try:
            return await call.answer
        finally:
            timer.cancel()
            if call in self._waiting:  # it expired, or who asked has gone
                self._waiting.remove(call)

    async def take(self, most_rows: int, seconds: float) -> list[Call]:
        """Calls of one form that wait, at least one, and joined up to `most_rows`; none at the end, or when none came for so long."""
        if not self._waiting and not self.ended:
            self._changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return []
        if not self._waiting:
            return []
        taken = [self._waiting.popleft()]
        left = most_rows - taken[0].rows
        while self._waiting and self._waiting[0].form == taken[0].form and self._waiting[0].rows <= left:
            taken.append(self._waiting.popleft())
            left -= taken[-1].rows
        return taken

    def put_back(self, calls: Sequence[Call]) -> None:
        """Calls that were taken, and not answered."""
        self._waiting.extendleft(reversed([call for call in calls if not call.answer.done()]))
        self._changed.set()

    def end(self) -> None:
        """Whoever takes is told so once nothing waits."""
        self._ended.set()
        self._changed.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return

    def fail(self, error: Exception) -> None:
        """Fail all that wait."""
        fail(self._waiting, error)
        self._waiting.clear()

    def _expire(self, call: Call) -> None:
        if call in self._waiting:
            call.fail(Overloaded("no process was free in time", expected="less at a time", next="try again"))


def joined(calls: Sequence[Call]) -> dict[str, Array]:
    """The rows of calls of one form, one after the other."""
    if len(calls) == 1:
        return calls[0].columns
    return {name: np.concatenate([call.columns[name] for call in calls]) for name in calls[0].columns}


def answer(calls: Sequence[Call], found: Array) -> None:
    """Give each its part of what the joined rows were answered."""
    place = 0
    for call in calls:
        if not call.answer.done():  # who asked may have gone
            call.answer.set_result(found[place : place + call.rows])
        place += call.rows


def fail(calls: Iterable[Call], error: Exception) -> None:
    for call in calls:
        call.fail(error)
