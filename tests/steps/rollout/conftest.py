"""A rollout's surroundings: two model servers' metrics that a test drives, and a real Prometheus that scrapes them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from perennial_registry.mlflow_rest import MlflowRest
from perennial_spec import names
from perennial_spec.load import load_pipeline
from perennial_steps.context import StepContext
from perennial_steps.prometheus import Prometheus

SCRAPE = 0.2
VERSION = ("pipeline", "version")


class Replica:
    """The metrics of one model server, by the names that the rules and steps ask for."""

    def __init__(self, buckets: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 1.0)) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self.seconds = Histogram(names.REQUEST_SECONDS, "-", VERSION, registry=self.registry, buckets=buckets)
        self.gauge(names.REGISTRY_UP).set(1)

    def gauge(self, name: str, **labels: str) -> Any:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, "-", list(labels), registry=self.registry)
        return self._gauges[name].labels(**labels) if labels else self._gauges[name]

    def counter(self, name: str, **labels: str) -> Any:
        if name not in self._counters:
            self._counters[name] = Counter(name.removesuffix("_total"), "-", list(labels), registry=self.registry)
        return self._counters[name].labels(**labels)

    def follow(self, pipeline: str, version: str, revision: int, loaded: int = 1) -> None:
        self.gauge(names.MODEL_LOADED, pipeline=pipeline, version=version).set(loaded)
        self.gauge(names.ROUTE_REVISION, pipeline=pipeline).set(revision)

    def answer(self, pipeline: str, version: str, requests: int, *, code: int = 200, seconds: float = 0.005) -> None:
        """Count `requests` that ended with `code` after `seconds` each."""
        self.counter(names.REQUESTS, pipeline=pipeline, version=version, protocol="oip", code=str(code)).inc(requests)
        histogram = self.seconds.labels(pipeline, version)
        for _ in range(requests):
            histogram.observe(seconds)

    def predict(self, pipeline: str, version: str, live: Mapping[str, int], reference: Mapping[str, float]) -> None:
        """Count predictions by bin, and show the reference of the same bins."""
        labels = {"pipeline": pipeline, "version": version, "feature": names.PREDICTION_FEATURE}
        for name, share in reference.items():
            self.gauge(names.REFERENCE_SHARE, **labels, bin=name).set(share)
            self.counter(names.OBSERVATIONS, **labels, bin=name).inc(live.get(name, 0))
        self.gauge(names.REFERENCE_ROWS, pipeline=pipeline, version=version).set(100_000)


@dataclass(frozen=True)
class Watch:
    """A Prometheus and the two model servers that it scrapes."""

    url: str
    replicas: tuple[Replica, Replica]
    client: Prometheus

    def until(self, expression: str, seconds: float = 20) -> None:
        """Until `expression` has a result: what was counted is seen a scrape later."""
        end = time.monotonic() + seconds
        while not self.client.query(expression):
            assert time.monotonic() < end, f"{expression} has no result"
            time.sleep(SCRAPE / 4)


class Server:
    """A Prometheus that scrapes these replicas, and that can be killed."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        self.folder, self._port, self._process = folder, free_port(), None
        self.url = f"http://127.0.0.1:{self._port}"
        listed = ", ".join(f"'{target}'" for target in targets)
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {SCRAPE * 1000:.0f}ms, scrape_timeout: {SCRAPE * 1000:.0f}ms}}\n"
            f"scrape_configs: [{{job_name: servers, static_configs: [{{targets: [{listed}]}}]}}]\n"
        )

    _process: subprocess.Popen[bytes] | None

    def start(self) -> None:
        files = [f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data"]
        log = self.folder / "prometheus.log"
        with log.open("ab") as file:
            command = ["prometheus", *files, f"--web.listen-address=127.0.0.1:{self._port}"]
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
        wait(lambda: httpx.get(f"{self.url}/-/ready", timeout=2).status_code == 200, self._process, log)

    def end(self, *, kill: bool = False) -> None:
        if self._process:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(timeout=20)

    def wipe(self) -> None:
        """All that it has stored; only while it is down."""
        shutil.rmtree(self.folder / "data")


@pytest.fixture(scope="session")
def replicas() -> Iterator[tuple[tuple[Replica, Replica], list[str]]]:
    """Two model servers' metrics, and where they are scraped."""
    made = (Replica(), Replica())
    servers = [start_http_server(0, addr="127.0.0.1", registry=replica.registry) for replica in made]
    yield made, [f"127.0.0.1:{server.server_port}" for server, _ in servers]
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


@pytest.fixture(scope="session")
def watch(
    replicas: tuple[tuple[Replica, Replica], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watch]:
    made, targets = replicas
    server = Server(tmp_path_factory.mktemp("prometheus"), targets)
    with watching(server, made) as found:
        yield found


@pytest.fixture
def mortal(replicas: tuple[tuple[Replica, Replica], list[str]], tmp_path: Path) -> Iterator[tuple[Watch, Server]]:
    """A Prometheus of the test's own, to be killed, and the same model servers."""
    made, targets = replicas
    server = Server(tmp_path, targets)
    with watching(server, made) as found:
        yield found, server


@contextmanager
def watching(server: Server, made: tuple[Replica, Replica]) -> Iterator[Watch]:
    try:
        server.start()
        with Prometheus(server.url) as client:
            watch = Watch(server.url, made, client)
            watch.until(f"count({names.REGISTRY_UP}) == 2")
            yield watch
    finally:
        server.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if ready():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(log.read_text()[-2000:])


@dataclass(frozen=True)
class Rollout:
    """One pipeline with a run's request and platform, over the shared registry and Prometheus."""

    room: Any
    trained: Any

    @property
    def name(self) -> str:
        return self.trained.name

    def deployment(self, text: str) -> None:
        """Write the pipeline, with this `deployment` as flow YAML."""
        self.room.pipeline(self.name, more=f"deployment: {text}\n")

    def context(
        self, step: str, version: str | None, champion: str | None, state: dict[str, Any] | None = None, **params: Any
    ) -> Any:
        """The context of a step whose run trained `version` and judged it against `champion`, and whose last look left `state`."""
        inputs: dict[str, Any] = {}
        if version is not None:
            inputs = {"train": {"model_version": version}, "evaluate": {"champion_version": champion}}
        request = self.room.request(step, self.name, inputs=inputs, params=params, state=state or {})
        pipeline = load_pipeline(self.room.root / "pipelines" / self.name)
        return StepContext(request, pipeline, self.room.platform)

    def state(self) -> dict[str, Any]:
        """What the registry says, for comparison: aliases, weights, verdicts."""
        registry = self.trained.registry
        versions = registry.versions(self.name)
        return {
            "aliases": {alias: version.version for version in versions for alias in version.aliases},
            "weights": registry.route(self.name).weights,
            "verdicts": {version.version: version.tags[names.TAG_VERDICT] for version in versions},
        }


@pytest.fixture
def rollout(room: Any, trained: Any) -> Rollout:
    """A pipeline of the test's own; its platform has the registry, and no Prometheus."""
    made = Rollout(room.with_platform(mlflow_url=trained.url), trained)
    made.deployment("{}")
    return made


@pytest.fixture
def watched_rollout(rollout: Rollout, watch: Watch) -> Rollout:
    """The same, whose platform has Prometheus too."""
    return Rollout(rollout.room.with_platform(prometheus_url=watch.url), rollout.trained)


class Killed(BaseException):
    """Stands for a SIGKILL: no `except Exception` may catch it."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`with killed_after(2): ...` lets two writes reach the registry, and ends the block before the third, which must come.

    With `dies=False` the block must end by itself.
    """

    @contextmanager
    def limit(writes: int, dies: bool = True) -> Iterator[None]:
        done, send = 0, MlflowRest._send

        def counted(self: MlflowRest, method: str, path: str, **arguments: Any) -> httpx.Response:
            nonlocal done
            if method != "GET":
                if done == writes:
                    raise Killed
                done += 1
            return send(self, method, path, **arguments)

        killed = False
        with monkeypatch.context() as patch:
            patch.setattr(MlflowRest, "_send", counted)
            try:
                yield
            except Killed:
                killed = True
        assert killed is dies

    return limit
