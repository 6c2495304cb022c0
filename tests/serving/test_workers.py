"""Several real workers under a real supervisor: killed, renewed, drained and orphaned, while clients ask."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
from deltalake import DeltaTable
from grpc_speaking import contents, free_port
from prometheus_client.parser import text_string_to_metric_families

from perennial_serving.counting import Counted
from perennial_spec import logs, names

START_SECONDS = 90.0
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Group:
    """`perennial-serve` with workers, and what it says on stderr."""

    def __init__(self, folder: Path, **environment: str) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith(("PERENNIAL_", "MLFLOW_"))}
        known |= {
            "PERENNIAL_PORT": "0",
            "PERENNIAL_HOME": str(folder),
            "PERENNIAL_STORE": str(folder / "store"),
            "PERENNIAL_SERVING_WORKERS": "2",
            "PERENNIAL_SERVING_POLL_SECONDS": "0.2",
            **environment,
        }
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perennial_serving"], env=known, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def text(self) -> str:
        """All that was said, once it has ended."""
        self.process.wait(60)
        self._reader.join(10)
        return "".join(self.said)

    @property
    def url(self) -> str:
        until(lambda: "listening on http" in "".join(self.said), START_SECONDS)
        return re.findall(r"listening on (http://\S+)", "".join(self.said))[0]

    @property
    def private(self) -> Path:
        """The folder of this supervisor."""
        for found in Path("/dev/shm").glob("perennial-serving-*/workers.json"):
            with suppress(FileNotFoundError):
                if json.loads(found.read_bytes())["supervisor"] == self.process.pid:
                    return found.parent
        raise AssertionError("the supervisor has no folder")

    def roll(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.private.joinpath("workers.json").read_bytes())
        return found

    @property
    def pids(self) -> set[int]:
        return set(self.roll()["workers"])

    def until_answering(self, workers: int = 2) -> None:
        def answering() -> bool:
            with suppress(AssertionError, FileNotFoundError):
                return self.roll()["answering"] == workers
            return False

        until(answering, START_SECONDS)

    def rows(self) -> dict[str, int]:
        """Rows predicted by slot, from the workers' own files."""
        cells = self.private.glob("versions/*/*.cells")
        return {file.stem: Counted(np.fromfile(file, np.int64), 0).rows for file in cells}

    def metrics(self, but: int = 0) -> dict[str, float]:
        """As scraped, from another worker than process `but`."""
        if but:
            os.kill(but, signal.SIGSTOP)
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=30).text
        finally:
            if but:
                os.kill(but, signal.SIGCONT)
        check = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (check.returncode, check.stderr) == (0, "")
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def stop(self) -> None:
        if self.process.poll() is None:
            pids = [
                self.process.pid,
                *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True)),
            ]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


def until(condition: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


Start = Callable[..., Group]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    groups: list[Group] = []

    def started(pipeline: Any = None, **environment: str) -> Group:
        if pipeline is not None:
            environment = {
                "MLFLOW_TRACKING_URI": pipeline.mlflow.url,
                "PERENNIAL_SERVING_PIPELINES": pipeline.name,
                **environment,
            }
        groups.append(Group(tmp_path, **environment))
        return groups[-1]

    yield started
    for group in groups:
        group.stop()


class Clients:
    """Some that keep their connections and some that take a new one each time, asking until they are told to stop or nobody listens."""

    def __init__(self, url: str, row: dict[str, Any], count: int = 3) -> None:
        self._url, self._body = f"{url}/invocations", {"dataframe_records": [row]}
        self._stop = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        self.refused = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(bool(n % 2),)) for n in range(2 * count)]
        for thread in self._threads:
            thread.start()

    def _ask(self, keep: bool) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if keep else 0)
        with httpx.Client(timeout=30, limits=limits) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._url, json=self._body)
                except httpx.ConnectError:
                    with self._lock:
                        self.refused += 1
                    return
                except httpx.HTTPError as error:
                    with self._lock:
                        self.failed.append(repr(error))
                    continue
                with self._lock:
                    self.answered += answer.status_code == 200
                    if answer.status_code != 200:
                        self.failed.append(f"{answer.status_code}: {answer.text}")
                time.sleep(0.005)

    def done(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_all_workers_answer_and_each_tells_of_all(pipeline: Any, bundles: Any, row: Any, start: Start) -> None:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    group = start(pipeline, PERENNIAL_SERVING_ATTRIBUTION_ROWS="100000", PERENNIAL_SERVING_ATTRIBUTION_SECONDS="0.5")
    group.until_answering()
    clients = Clients(group.url, row)
    until(lambda: len(group.rows()) == 2 and min(group.rows().values()) > 20, 30)
    clients.done()
    assert clients.failed == []
    of = f"[('pipeline', '{pipeline.name}'), ('version', '{version}')]"
    until(lambda: group.metrics()[f"{names.ATTRIBUTION_ROWS}{of}"] == clients.answered, 60)
    scraped = [group.metrics(but=pid) for pid in group.pids]
    for samples in scraped:
        assert samples[f"{names.PREDICTIONS}{of}"] == clients.answered == sum(group.rows().values())
        assert samples[f"{names.REQUEST_SECONDS}_count{of}"] == clients.answered
        assert samples[f"{names.WORKERS}[]"] == 2
    going_on = (
        "process_",
        "perennial_registry_",
        "perennial_health_query_",
        names.IN_FLIGHT,
        names.PREDICTION_LOG_WRITTEN,
    )
    own = [{name: v for name, v in each.items() if not name.startswith(going_on)} for each in scraped]
    assert own[0] == own[1]
    assert scraped[1]["process_cpu_seconds_total[]"] >= scraped[0]["process_cpu_seconds_total[]"] > 1


def test_connections_are_spread_over_the_workers(pipeline: Any, bundles: Any, row: Any, start: Start) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    group = start(pipeline)
    group.until_answering()
    port = int(group.url.rpartition(":")[2])
    for pause in (0.0, 0.0, 0.02):
        clients = []
        for _ in range(32):
            clients.append(socket.create_connection(("127.0.0.1", port)))
            time.sleep(pause)
        time.sleep(0.5)
        found = [psutil.Process(pid).net_connections() for pid in group.pids]
        counts = [sum(c.status == "ESTABLISHED" and c.laddr.port == port for c in each) for each in found]
        assert (sum(counts), min(counts) >= 10) == (32, True), counts
        for client in clients:
            client.close()
        time.sleep(0.7)


def test_a_killed_worker_is_followed_by_another_while_others_answer_and_no_count_falls(
    pipeline: Any, bundles: Any, row: Any, start: Start
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    group = start(pipeline)
    group.until_answering()
    before: dict[str, float] = {}
    route = {old: 0.5, new: 0.5}
    for victim in list(group.pids):
        clients = Clients(group.url, row)
        until(lambda: len(group.rows()) >= 2 and clients.answered > 50, 30)  # noqa: B023
        clients.done()
        os.kill(victim, signal.SIGKILL)
        for _ in range(50):
            assert httpx.post(f"{group.url}/invocations", json={"dataframe_records": [row]}).status_code == 200
        pipeline.route(route)  # it may have been the killed worker that asked the registry
        group.until_answering()
        assert victim not in group.pids
        revision = f"{names.ROUTE_REVISION}[('pipeline', '{pipeline.name}')]"
        for pid in group.pids:
            until(lambda: group.metrics(but=pid).get(revision) == pipeline.revision, 30)  # noqa: B023
        now = group.metrics()
        counters = {
            n
            for n in before
            if n.startswith(("perennial_", "process_cpu")) and re.match(r"\w+_(total|count|bucket)\b", n)
        }
        assert len(counters) > 50 or not before
        assert {name for name in counters if now.get(name, -1) < before[name]} == set()
        before, route = now, {new: 1.0}
    assert "worker 0 has ended, by SIGKILL; another follows in 0.2 s" in "".join(group.said)


def test_sigterm_drains_all_workers_without_a_failed_request(
    pipeline: Any, bundles: Any, row: Any, start: Start
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    group = start(pipeline, PERENNIAL_SERVING_DRAIN_SECONDS="3", PERENNIAL_SERVING_LOG_FLUSH_SECONDS="600")
    group.until_answering()
    private = group.private
    clients = Clients(group.url, row)
    until(lambda: clients.answered > 100, 30)
    group.process.terminate()
    assert group.process.wait(60) == 0
    clients.done()
    assert clients.failed == []
    table = DeltaTable(f"{group.folder}/store/{pipeline.name}/{logs.PREDICTIONS}").to_pyarrow_table()
    assert table.num_rows == clients.answered
    assert len(set(table["prediction_id"].to_pylist())) == clients.answered
    assert "Traceback" not in group.text()
    assert not private.exists()


def test_sighup_puts_new_workers_in_place_without_a_failed_request(
    pipeline: Any, bundles: Any, row: Any, start: Start
) -> None:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    group = start(pipeline)
    group.until_answering()
    old = group.pids
    clients = Clients(group.url, row)
    until(lambda: clients.answered > 50, 30)
    group.process.send_signal(signal.SIGHUP)
    until(lambda: "2 of 2 workers are new" in "".join(group.said), 90)
    assert not old & group.pids
    assert group.roll()["answering"] == 2
    after = clients.answered
    until(lambda: clients.answered > after + 50, 30)
    clients.done()
    assert (clients.failed, clients.refused) == ([], 0)
    of = f"[('pipeline', '{pipeline.name}'), ('version', '{version}')]"
    for pid in group.pids:
        assert group.metrics(but=pid)[f"{names.PREDICTIONS}{of}"] == clients.answered


def test_grpc_is_spoken_by_all_workers_on_one_port_and_goes_on_through_a_renewal(
    pipeline: Any, bundles: Any, row: Any, start: Start
) -> None:
    version = pipeline.register(bundles["one"])
    pipeline.route({version: 1.0})
    port = free_port()
    group = start(pipeline, PERENNIAL_GRPC_PORT=str(port))
    group.until_answering()
    body, asked = contents([row], pipeline.name).SerializeToString(), 0
    while len(group.rows()) < 2 or min(group.rows().values()) == 0:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            channel.unary_unary(INFER)(body, timeout=20)
        asked += 1
        assert asked < 100, "one worker takes all connections"
    group.process.send_signal(signal.SIGHUP)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:  # one connection, for as long as there is one
        infer = channel.unary_unary(INFER)
        lost = 0
        while "2 of 2 workers are new" not in "".join(group.said):
            try:
                infer(body, timeout=20)
                asked += 1
            except grpc.RpcError as error:  # gRPC itself cancels what reaches a server in the moment of its end
                assert error.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
                lost += 1
    assert lost <= 4
    assert sum(group.rows().values()) == asked


def test_a_killed_supervisor_leaves_no_orphan(pipeline: Any, bundles: Any, row: Any, start: Start) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    group = start(pipeline)
    group.until_answering()
    private = group.private
    everyone = psutil.Process(group.process.pid).children(recursive=True)
    assert len(everyone) >= 4  # two workers, and the writers of their logs
    assert httpx.post(f"{group.url}/invocations", json={"dataframe_records": [row]}).status_code == 200
    group.process.kill()
    _, alive = psutil.wait_procs(everyone, timeout=30)
    assert alive == []
    assert not private.exists()


def test_the_registry_being_away_at_first_keeps_one_worker_that_says_so(start: Start) -> None:
    group = start(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    group.until_answering(1)
    answer = httpx.get(f"{group.url}/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})
    assert httpx.get(f"{group.url}/v2/health/live").status_code == 200
    assert len(group.pids) == 1
    group.process.send_signal(signal.SIGINT)
    assert group.process.wait(30) == 0


def test_what_is_left_when_all_are_killed_is_removed_by_the_next(start: Start) -> None:
    killed = start(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    killed.until_answering(1)
    left = killed.private
    killed.stop()
    assert left.exists()
    one = start(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    one.until_answering(1)
    other = start(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    other.until_answering(1)
    assert (left.exists(), one.private.exists(), other.private.exists()) == (False, True, True)


def test_a_worker_for_which_there_are_no_descriptors_is_started_later(
    pipeline: Any, bundles: Any, row: Any, start: Start
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    group = start(pipeline)
    group.until_answering()
    before = resource.prlimit(group.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(group.process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    group.process.send_signal(signal.SIGHUP)
    until(lambda: "0 of 2 workers are new" in "".join(group.said), 30)
    assert "no worker can be started (Too many open files); worker 0 goes on" in "".join(group.said)
    os.kill(min(group.pids), signal.SIGKILL)
    until(lambda: "a worker cannot be started (Too many open files)" in "".join(group.said), 30)
    assert "who answers cannot be written down: Too many open files" in "".join(group.said)
    assert httpx.post(f"{group.url}/invocations", json={"dataframe_records": [row]}).status_code == 200
    resource.prlimit(group.process.pid, resource.RLIMIT_NOFILE, before)
    group.until_answering()


def test_what_keeps_the_first_worker_from_starting_ends_the_supervisor(start: Start) -> None:
    group = start()
    assert "MLFLOW_TRACKING_URI is not set" in group.text()
    assert group.process.returncode == 1
    assert "another follows" not in group.text()


@pytest.mark.parametrize("variable", ["PERENNIAL_PORT", "PERENNIAL_GRPC_PORT"])
def test_a_taken_port_is_named(start: Start, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        group = start(MLFLOW_TRACKING_URI="http://127.0.0.1:1", **{variable: str(port)})
        text = group.text()
    assert f"the model server cannot listen on 127.0.0.1:{port}: Address already in use" in text
    assert f"set {variable}" in text


def test_a_place_to_count_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    code = (
        "import resource, perennial_serving.workers as w; from pathlib import Path;"
        "w._MEMORY = Path('/proc'); import tempfile; tempfile.tempdir = '/proc/nowhere';"
        "w._private_folder()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the workers have no place to count" in found.stderr
    assert "next: make room there, or set TMPDIR" in found.stderr
