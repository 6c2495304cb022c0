"""What counting bins adds to a request: the server's own path from the bytes of a request to the bytes of its answer, with and without.

Without sockets, so that nothing else is in the figure: to a request over HTTP, counting adds a smaller share. One request per turn of the
event loop, which is the dearest case: at load, many requests share a turn.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from bench.serving.data import FORMS, PIPELINE, Batch, batches, train

from perennial_native._rows import scan
from perennial_serving.counting import ServerCounters
from perennial_serving.engine import Engine
from perennial_serving.fleet import Fleet, Served
from perennial_serving.loading import Fetched, load_model
from perennial_serving.model import LoadedModel
from perennial_serving.processes import Processes
from perennial_serving.settings import Settings
from perennial_serving.turns import Turns
from perennial_spec.route import Route

SIZES = (1, 100)
BODIES = 64


class Uncounted:
    """A scorer that counts nothing."""

    def __init__(self, scorer: Any) -> None:
        self.matrix, self.predict = scorer.matrix, scorer.predict

    def count(self, matrix: Any, scores: Any, counters: Any) -> None:
        return


class Client:
    """Takes answers, and fails when it is sent the general way."""

    def __init__(self) -> None:
        self.answers = 0

    def answer(self, response: bytes) -> None:
        self.answers += response.startswith(b"HTTP/1.1 200")

    def general(self, data: bytes) -> None:
        raise AssertionError("this request is not plain")


@dataclass
class Counting:
    """Microseconds per request, by round, and by rows per request."""

    with_bins: dict[int, list[float]] = field(default_factory=dict)
    without: dict[int, list[float]] = field(default_factory=dict)
    bins_alone: dict[int, list[float]] = field(default_factory=dict)


def measure(folder: Path, rounds: int, seconds: float) -> Counting:
    """Both ways in turn, `rounds` times; each for `seconds`."""
    import asyncio

    return asyncio.run(_measure(folder, rounds, seconds))


async def _measure(folder: Path, rounds: int, seconds: float) -> Counting:
    trained = train(folder / "model")
    settings = Settings(cache_dir=str(folder / "cache"))
    model = load_model(Fetched(PIPELINE, "1", "", folder / "model" / "bundle"), settings, Processes())
    found = Counting()
    for size in SIZES:
        requests = [_request(batch) for batch in batches(trained, size, BODIES, size)]
        silent: Any = Uncounted(model.scorer)
        paths = {
            "with_bins": _path(model, settings),
            "without": _path(replace(model, scorer=silent), settings),
        }
        for turn in range(rounds):
            order = list(paths) if turn % 2 else list(paths)[::-1]
            for name in order:
                if not turn:
                    _timed(paths[name], requests, seconds)  # the first time is slower
                figures = getattr(found, name).setdefault(size, [])
                figures.append(_timed(paths[name], requests, seconds))
            found.bins_alone.setdefault(size, []).append(_alone(model, size, seconds / 10))
    return found


def _request(batch: Batch) -> bytes:
    body = batch.body(FORMS["ours"])
    head = f"POST /pipelines/{PIPELINE}/invocations HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _path(model: LoadedModel, settings: Settings) -> Turns:
    served = Served(PIPELINE, Route(revision=1, weights={"1": 1.0}), {"1": model}, "1")
    fleet = Fleet({PIPELINE: served})
    return Turns(fleet, Engine(settings, ServerCounters(), None), settings, None)


def _timed(turns: Turns, requests: list[bytes], seconds: float) -> float:
    """Microseconds per request."""
    client: Any = Client()
    gc.collect()
    gc.disable()
    began, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        for data in requests:
            plain = scan(data)
            assert plain is not None
            turns.take(client, data, plain)
            turns._turn()
        done += len(requests)
    gc.enable()
    assert client.answers == done, f"{client.answers} of {done} answers"
    return (now - began) / done * 1e6


def _alone(model: LoadedModel, rows: int, seconds: float) -> float:
    """Microseconds of counting itself."""
    assert model.scorer is not None
    rng = np.random.default_rng(0)
    matrix = rng.gamma(2.0, 30.0, (rows, len(model.schema.features))).astype(np.float32)
    scores, counters = rng.random(rows), model.counters.values
    began, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        for _ in range(100):
            model.scorer.count(matrix, scores, counters)
        done += 100
    return (now - began) / done * 1e6
