"""Sends a plan to a model server over HTTP and counts what comes back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perennial_cli.replay.plan import Cursor, Event, Plan

if TYPE_CHECKING:
    import httpx

TICK_SECONDS = 0.1
LABELS_PER_REQUEST = 500


@dataclass
class Progress:
    """What has happened so far. Written by one replay, read by whoever shows it."""

    simulated: datetime | None = None
    requests: int = 0
    rows: int = 0
    labels: int = 0
    failures: list[str] = field(default_factory=list)
    """What each request that was not answered with 200 got instead; the newest 100."""
    failed: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    """Answers by the model version (or versions) that gave them."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from request to answer, as the client saw them; the newest 100,000."""

    def fail(self, what: str) -> None:
        self.failed += 1
        self.failures = [*self.failures[-99:], what]


@dataclass(frozen=True)
class Target:
    """Where to send."""

    server_url: str
    pipeline: str
    concurrency: int = 4
    timeout_seconds: float = 30.0


OnTick = Callable[[Progress], None]


class Replay:
    """One replay of a plan. `stop()` from any thread ends it cleanly after the requests in flight."""

    def __init__(self, plan: Plan, target: Target, on_tick: OnTick | None = None) -> None:
        self.progress = Progress()
        self._plan = plan
        self._target = target
        self._on_tick = on_tick
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> Progress:
        """Send everything; returns when all is answered or the replay was stopped."""
        asyncio.run(self._run())
        return self.progress

    async def _run(self) -> None:
        import httpx

        limits = httpx.Limits(max_connections=self._target.concurrency)
        async with httpx.AsyncClient(
            base_url=self._target.server_url, timeout=self._target.timeout_seconds, limits=limits
        ) as client:
            cursor, began = Cursor(self._plan), time.monotonic()
            gate = asyncio.Semaphore(self._target.concurrency)
            async with asyncio.TaskGroup() as group:
                while not self._stopped:
                    now = self._plan.simulated(time.monotonic() - began)
                    for events in cursor.ask(now):
                        await gate.acquire()  # a slow server slows the replay down; rows are never skipped
                        group.create_task(self._released(gate, self._ask(client, events)))
                    labels = cursor.labels(now)
                    for first in range(0, len(labels), LABELS_PER_REQUEST):
                        await gate.acquire()
                        part = labels[first : first + LABELS_PER_REQUEST]
                        group.create_task(self._released(gate, self._label(client, part)))
                    self.progress.simulated = now
                    if self._on_tick:
                        self._on_tick(self.progress)
                    if cursor.is_done:
                        break
                    await asyncio.sleep(TICK_SECONDS)

    @staticmethod
    async def _released(gate: asyncio.Semaphore, work: Any) -> None:
        try:
            await work
        finally:
            gate.release()

    async def _ask(self, client: httpx.AsyncClient, events: tuple[Event, ...]) -> None:
        body = {"dataframe_records": [event.inputs for event in events]}
        began = time.monotonic()
        response = await self._post(client, f"/pipelines/{self._target.pipeline}/invocations", body)
        if response is None:
            return
        self.progress.requests += 1
        self.progress.rows += len(events)
        self.progress.latencies.append(time.monotonic() - began)
        del self.progress.latencies[:-100_000]
        for version in response.headers.get("X-Perennial-Version", "unknown").split(","):
            self.progress.versions[version.strip()] += 1

    async def _label(self, client: httpx.AsyncClient, events: tuple[Event, ...]) -> None:
        body = {"labels": [{"entity": event.entity, "label": event.label} for event in events]}
        if await self._post(client, f"/pipelines/{self._target.pipeline}/feedback", body) is not None:
            self.progress.labels += len(events)

    async def _post(self, client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response | None:
        import httpx

        try:
            response = await client.post(path, json=body)
        except httpx.HTTPError as error:
            self.progress.fail(f"{path}: {type(error).__name__}: {error}")
            return None
        if response.status_code != 200:
            self.progress.fail(f"{path}: {response.status_code}: {response.text[:200]}")
            return None
        return response
