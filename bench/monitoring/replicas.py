"""Fake replicas for Prometheus: the model server's own exposition, of counters that a clock moves instead of requests.

What a counter is at a moment is a function of the moment, so that the past can be written for a Prometheus that has not seen it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np

from perennial_features.reference import Reference
from perennial_features.schema import Feature, FeatureSchema
from perennial_serving.counting import ServerCounters, VersionCounters
from perennial_serving.exposition import VersionFacts, VersionText
from perennial_serving.fleet import Fleet, Served
from perennial_serving.metrics import CONTENT_TYPE, Exposition, Limits, OwnTally
from perennial_spec import names
from perennial_spec.route import Route

ROWS_PER_SECOND = 20
"""Of each pipeline and replica."""
SINCE_DAYS = 2
JOB = "perennial-server"


def reference_of(features: int) -> Reference:
    """Deciles of normal numbers: 10 bins and `missing` for each feature."""
    rng = np.random.default_rng(0)
    schema = FeatureSchema(
        inputs=(), features=tuple(Feature(name=f"feature_{n:02}", kind="numeric") for n in range(features))
    )
    return Reference.of(rng.normal(size=(20_000, features)).astype(np.float32), schema, rng.random(20_000))


class Replica:
    """One server with many pipelines, each with one version."""

    def __init__(self, pipelines: int, features: int, began: float) -> None:
        self._began = began - SINCE_DAYS * 86_400
        reference = reference_of(features)
        rng = np.random.default_rng(1)
        self._models: list[Any] = []
        self._shares: list[Any] = []
        self._texts: dict[str, VersionText] = {}
        served = {}
        for number in range(pipelines):
            name = f"pipeline-{number:03}"
            model: Any = SimpleNamespace(
                pipeline=name, version="1", reference=reference, counters=VersionCounters(reference), trained=began
            )
            self._models.append(model)
            self._texts[name] = VersionText(VersionFacts.of(name, "1", reference))
            # Every tenth has drifted, so that the alerts have something to do.
            skew = rng.normal(0, 0.5 if number % 10 == 0 else 0.01, len(reference.series))
            self._shares.append(np.clip(reference.shares * np.exp(skew), 0, 1))
            served[name] = Served(name, Route(revision=1, weights={"1": 1.0}), {"1": model}, "1")
        fleet = Fleet(served, registry_up=True, settled=True, started=True)
        self._exposition = Exposition(fleet, OwnTally(fleet, ServerCounters()), True, Limits(1024, 200_000))
        self._lock = threading.Lock()

    def page(self) -> bytes:
        """The scrape's answer now."""
        with self._lock:
            self._count(time.time())
            return self._exposition.text()

    def past(self, moment: float, bins: bool) -> Iterator[str]:
        """What the counters were: lines of OpenMetrics without the labels of the target; rows, and with `bins` also these."""
        with self._lock:
            self._count(moment)
            for model in self._models:
                text, counted = self._texts[model.pipeline], model.counters.counted
                yield text.predictions(counted)
                if bins:
                    yield text.observations(counted)
                    yield text.out_of_range(counted)

    def _count(self, moment: float) -> None:
        rows = ROWS_PER_SECOND * (moment - self._began)
        for model, shares in zip(self._models, self._shares, strict=True):
            cells, bins = model.counters, len(model.counters.bins)
            cells.cells[0] = int(rows)
            cells.values[:bins] = (shares * rows).astype(np.int64)
            cells.values[bins:] = int(rows * 0.001)


def controller_page(pipelines: int) -> bytes:
    """What the controller exports of so many specs."""
    lines = []
    for number in range(pipelines):
        of = f'pipeline="pipeline-{number:03}"'
        lines += [
            f"{names.DRIFT_THRESHOLD}{{{of}}} 0.2",
            f"{names.DRIFT_MIN_ROWS}{{{of}}} 500",
            f'{names.DRIFT_WINDOW}{{{of},window="{("5m", "1h", "1d")[number % 3]}"}} 1',
            f'{names.RETRAIN_ON}{{{of},trigger="drift"}} 1',
        ]
    return ("\n".join(lines) + "\n").encode()


def serve(page: Any) -> ThreadingHTTPServer:
    """An HTTP server on a free port of loopback, in a thread, that answers every GET with `page()`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
