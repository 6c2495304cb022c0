"""A real Prometheus that loses its data, under a server that counts on."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from controller_neighbours import free_port, wait_for

from perennial_spec import names

RULES = Path(__file__).parents[2] / "monitoring" / "rules"
BINS = [f"d{place}" for place in range(10)]
DRIFTED = [0.0, 0.0, *[0.125] * 8]


class Server:
    """What a model server and the controller show of two pipelines, at 200 rows a second.

    `old` counts 30,000 rows that had drifted, of before Prometheus came, and good ones since. `new` has none until it is told to begin,
    and drifts.
    """

    def __init__(self) -> None:
        self.began = time.time()
        self.new: float | None = None

    def text(self) -> str:
        rows = (time.time() - self.began) * 200
        lines = self._pipeline("old", [30_000 * share + int(rows / 10) for share in DRIFTED])
        seconds = 0.0 if self.new is None else time.time() - self.new
        lines += self._pipeline("new", [int(seconds * 200 * share) for share in DRIFTED])
        return "\n".join([*lines, f"process_start_time_seconds {self.began - 1_000_000}", ""])

    def _pipeline(self, pipeline: str, counts: list[float]) -> list[str]:
        by = f'pipeline="{pipeline}",version="1"'
        lines = [f'{names.OBSERVATIONS}{{{by},feature="x",bin="{b}"}} {n}' for b, n in zip(BINS, counts, strict=True)]
        lines += [f'{names.REFERENCE_SHARE}{{{by},feature="x",bin="{b}"}} 0.1' for b in BINS]
        lines += [f"{names.PREDICTIONS}{{{by}}} {sum(counts)}", f"{names.REFERENCE_ROWS}{{{by}}} 50000"]
        lines += [f"{names.CHAMPION}{{{by}}} 1", f'{names.DRIFT_THRESHOLD}{{pipeline="{pipeline}"}} 0.2']
        lines += [f'{names.DRIFT_MIN_ROWS}{{pipeline="{pipeline}"}} 500']
        return [*lines, f'{names.DRIFT_WINDOW}{{pipeline="{pipeline}",window="5m"}} 1']


@pytest.fixture
def server() -> Iterator[tuple[Server, int]]:
    counting = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = counting.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield counting, http.server_address[1]
    http.shutdown()
    http.server_close()


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """Ends as by a crash."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{RULES}/drift-*.yml', '{RULES}/retraining.yml']\n"
        f"scrape_configs: [{{job_name: perennial-server, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def asked(port: int, expression: str) -> list[str]:
    """The pipelines of what `expression` finds; nothing while Prometheus is not up."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return sorted(each["metric"].get("pipeline", "") for each in json.load(answer)["data"]["result"])
    except OSError:
        return []


def test_data_that_is_lost_under_counters_that_go_on_is_no_drift(tmp_path: Path, server: tuple[Server, int]) -> None:
    counting, target = server
    with prometheus(tmp_path, target) as port:
        wait_for(lambda: asked(port, "count_over_time(perennial_predictions_total[1m]) > 3"), "the first scrapes")
        assert asked(port, "ALERTS") == []
    shutil.rmtree(tmp_path / "data")
    with prometheus(tmp_path, target) as port:
        wait_for(lambda: asked(port, "count_over_time(perennial_predictions_total[1m]) > 8"), "scrapes after the loss")
        assert asked(port, "count_over_time(ALERTS[5m])") == []
        # The rules are at work: a pipeline whose rows begin under this Prometheus, and drift, is found within seconds.
        counting.new = time.time()
        wait_for(
            lambda: asked(port, 'ALERTS{alertname="PerennialFeatureDrift"}') == ["new"], "the new pipeline's drift"
        )
        assert asked(port, 'count_over_time(ALERTS{pipeline="old"}[5m])') == []
