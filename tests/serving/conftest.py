"""A real MLflow server, real bundles of real (small) XGBoost models, and the real model server on a loopback port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

import httpx
import numpy as np
import pytest
from flavours import Logging

from perennial_features.attribution import Attribution
from perennial_features.bundle import Bundle, Smoke, smoke_of
from perennial_features.code import load_features
from perennial_features.encode import encode_all
from perennial_features.engine import contributions, load_xgboost
from perennial_features.reference import Reference
from perennial_features.schema import infer
from perennial_serving.http_server import Server
from perennial_serving.listening import listen
from perennial_serving.server import Parts, assemble, server_of
from perennial_serving.settings import Settings
from perennial_spec import names
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.platform import Platform
from perennial_spec.route import Route

FEATURES = """
import numpy as np

def features(columns):
    departure = columns["departure"]
    hour = np.where(np.isnat(departure), np.nan, departure.astype("datetime64[h]").astype(np.int64) % 24)
    return {
        "distance": columns["distance"],
        "far": np.log1p(np.abs(columns["distance"])),
        "hour": hour,
        "carrier": columns["carrier"],
        "stops": columns["stops"],
        "direct": columns["direct"],
    }
"""
FRAGILE = (
    FEATURES
    + """
_sound = features

def features(columns):
    if columns["stops"].dtype != np.int64:
        raise TypeError("stops must be whole numbers")
    if np.any(columns["distance"] == 666.0):
        raise ValueError(f"cannot do with {columns['carrier'].tolist()}")
    return _sound(columns)
"""
)
WIDER = (
    FEATURES
    + """
_narrow = features

def features(columns):
    return {**_narrow(columns), "wind": columns["wind"]}
"""
)
MOODY = (
    FEATURES
    + """
import os
_sound = features

def features(columns):
    mood = os.environ.get("MOOD", "1")
    if mood == "broken":
        raise ValueError("not today")
    return {**_sound(columns), "distance": columns["distance"] * float(mood)}
"""
)
WIDEST = (
    FEATURES
    + """
_narrow = features

def features(columns):
    many = {f"times {n}": columns["distance"] * n for n in range(1, 395)}
    texts = np.array([str(stops) for stops in columns["stops"]], dtype=object)
    shifted = {f"text {n}": np.array([f"{n} {text}" for text in texts], dtype=object) for n in range(100)}
    return {**_narrow(columns), **many, **shifted}
"""
)
NUMBERS = """
def features(columns):
    return {name: columns[name] for name in ("distance", "stops", "direct", "wind")}
"""
ROW: dict[str, Any] = {
    "flight_id": "F1",
    "departure": "2013-06-01T05:15:00Z",
    "distance": 750.0,
    "stops": 1,
    "direct": False,
    "carrier": "UA",
}
PIPELINES = count(1)


def spec_of(name: str, redact_entity: bool = False) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "apiVersion": "perennial/v1",
            "name": name,
            "owner": {"team": "ops", "contact": "ops@example.com"},
            "data": {
                "sources": {"flights": "flights.parquet"},
                "timestamp": "departure",
                "entity": "flight_id",
                "label": {"column": "late"},
                "sensitive": ["gender"],
                "redact": {"email": "drop", "passport": "hash", **({"flight_id": "hash"} if redact_entity else {})},
            },
            "model": {"kind": "xgboost.classifier"},
            "evaluation": {"metric": "roc_auc", "gates": [{"metric": "roc_auc", "min": 0.6}]},
        }
    )


def flights(rows: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Training data: typed columns."""
    rng = np.random.default_rng(seed)
    carrier = rng.choice(np.array(["UA", "B6", "AA", "DL", None], dtype=object), rows, p=[0.4, 0.3, 0.2, 0.08, 0.02])
    distance = rng.gamma(4.0, 250.0, rows)
    distance[rng.random(rows) < 0.03] = np.nan
    start = np.datetime64("2013-01-01T00:00", "us")
    return {
        "departure": start + rng.integers(0, 60 * 24 * 60, rows).astype("timedelta64[m]"),
        "distance": distance,
        "stops": rng.integers(0, 3, rows),
        "direct": rng.random(rows) < 0.6,
        "carrier": carrier,
        "wind": rng.normal(10, 3, rows),
        "gender": rng.choice(np.array(["f", "m"], dtype=object), rows),
    }


def save_bundle(
    folder: Path,
    spec: PipelineSpec,
    source: str = FEATURES,
    seed: int = 0,
    rows: int = 2000,
    rounds: int = 10,
    classes: int = 0,
) -> Path:
    """Train and save, as the train step does; with `classes`, a model that gives a probability to each of so many."""
    folder.mkdir(parents=True)
    (folder / "features.py").write_text(source)
    code = load_features(folder / "features.py", "features")
    columns = flights(rows, seed)
    hardship = np.nan_to_num(columns["distance"]) + 300 * columns["stops"] + 40 * columns["wind"]
    label = np.digitize(hardship, np.linspace(1000, 2000, classes - 1)) if classes else (hardship > 1700).astype(float)
    features, read = code.trace(columns)
    schema = infer({name: columns[name] for name in read}, features)
    encoded = encode_all(features, schema)
    xgboost = load_xgboost()
    data = xgboost.DMatrix(
        encoded.matrix,
        label,
        feature_names=schema.feature_names,
        feature_types=schema.feature_types,
        enable_categorical=True,
    )
    objective = {"objective": "multi:softprob", "num_class": classes} if classes else {"objective": "binary:logistic"}
    booster = xgboost.train({**objective, "max_depth": 3, "nthread": 1, "seed": seed}, data, rounds)
    booster.set_param({"nthread": 1})
    scores = booster.inplace_predict(encoded.matrix)
    reference = Reference.of(encoded, schema, scores[:, 0] if classes else scores)
    attributed = (
        None if classes else Attribution.of(schema.feature_names, contributions(booster, encoded.matrix)[:, :-1])
    )
    bundle = Bundle(
        kind="xgboost.classifier",
        schema=schema,
        reference=reference.model_copy(update={"attribution": attributed}),
        code=code,
        booster=booster,
        spec=spec.model_dump(mode="json"),
    )
    inputs = {name: columns[name] for name in read}
    smoke_columns = smoke_of(inputs)
    answers = bundle.predict(bundle.columns(smoke_columns)).tolist()
    replace(bundle, smoke=Smoke(smoke_columns, answers)).save(folder)
    return folder


# -- the registry --


class Mlflow:
    """A real MLflow server in a process, and its registry written to as the steps write to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._http = httpx.Client(base_url=f"{self.url}/api/2.0/", timeout=30)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )

        def answers() -> bool:
            with suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/health").status_code == 200
            return False

        until(answers, 120)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self._http.post(f"mlflow/{path}", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def create(self, name: str) -> None:
        self.post("registered-models/create", name=name)

    def register(self, name: str, bundle: Path) -> str:
        """Upload the bundle and register a version for it."""
        experiment = "0"
        run = self.post("runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
        root = f"{experiment}/{run['run_id']}/artifacts/bundle"
        for file in sorted(path for path in bundle.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            path = f"mlflow-artifacts/artifacts/{root}/{file.relative_to(bundle)}"
            assert self._http.put(path, content=file.read_bytes()).status_code == 200
        uri = f"mlflow-artifacts:/{root}"
        tags = [{"key": names.TAG_BUNDLE_URI, "value": uri}]
        made = self.post("model-versions/create", name=name, run_id=run["run_id"], source=uri, tags=tags)
        return str(made["model_version"]["version"])

    def route(self, name: str, route: Route) -> None:
        self.post("registered-models/set-tag", name=name, key=names.TAG_ROUTE, value=route.model_dump_json())

    def champion(self, name: str, version: str) -> None:
        self.post("registered-models/alias", name=name, alias=names.ALIAS_CHAMPION, version=version)


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    server = Mlflow(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


class Cable:
    """The connection to the registry, which a test can cut: what comes in on `url` goes to the registry's port."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._cut = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()

    def mend(self) -> None:
        self._cut.clear()

    def turn(self, port: int) -> None:
        """Lead to another port; connections of before are cut."""
        self._target = port
        self.cut()
        time.sleep(0.2)  # longer than `_carry` waits
        self.mend()

    def close(self) -> None:
        self._closed.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            if self._cut.is_set():
                ours.close()
                continue
            threading.Thread(target=self._carry, args=(ours,), daemon=True).start()

    def _carry(self, ours: socket.socket) -> None:
        # Not select(): this process may have more than 1,024 open files by now.
        with ours, socket.create_connection(("127.0.0.1", self._target)) as theirs, DefaultSelector() as ready:
            ready.register(ours, EVENT_READ, theirs)
            ready.register(theirs, EVENT_READ, ours)
            while not self._cut.is_set() and not self._closed.is_set():
                for key, _ in ready.select(0.05):
                    source: Any = key.fileobj
                    data = source.recv(65536)
                    if not data:
                        return
                    key.data.sendall(data)


@pytest.fixture
def cable(mlflow: Mlflow) -> Iterator[Cable]:
    made = Cable(mlflow.port)
    yield made
    made.close()


# -- pipelines and bundles --


@dataclass
class Pipeline:
    """A registered model of this test alone."""

    name: str
    mlflow: Mlflow
    revision: int = 0

    def route(self, weights: dict[str, float], shadow: tuple[str, ...] = ()) -> Route:
        self.revision += 1
        route = Route(revision=self.revision, weights=weights, shadow=shadow)
        self.mlflow.route(self.name, route)
        return route

    def register(self, bundle: Path) -> str:
        return self.mlflow.register(self.name, bundle)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that answer differently: `one` and `two`; `fragile` fails at distance 666; `wider` needs the column wind; `numbers` takes
    only numbers: distance, stops, direct, wind; `classes` gives a probability to each of three; `moody` answers as the environment's MOOD
    says; `widest` has 500 features."""
    root, spec = tmp_path_factory.mktemp("bundles"), spec_of("flights")
    return {
        "one": save_bundle(root / "one", spec, seed=1),
        "two": save_bundle(root / "two", spec, seed=2, rounds=20),
        "fragile": save_bundle(root / "fragile", spec, FRAGILE, seed=3),
        "wider": save_bundle(root / "wider", spec, WIDER, seed=4),
        "numbers": save_bundle(root / "numbers", spec, NUMBERS, seed=6),
        "classes": save_bundle(root / "classes", spec, seed=7, classes=3),
        "moody": save_bundle(root / "moody", spec, MOODY, seed=8),
        "widest": save_bundle(root / "widest", spec, WIDEST, seed=9, rounds=2),
        "secret": save_bundle(root / "secret", spec_of("flights", redact_entity=True), seed=5),
    }


@pytest.fixture
def pipeline(mlflow: Mlflow) -> Pipeline:
    made = Pipeline(f"flights-{next(PIPELINES)}", mlflow)
    mlflow.create(made.name)
    return made


# -- the model server --


class Running:
    """The model server on a port of its own, in a thread."""

    def __init__(self, platform: Platform, settings: Settings) -> None:
        self.platform = platform
        self.settings = settings
        self.parts: Parts = assemble(platform, settings)
        sock = listen(settings)
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self._server: Server = server_of(self.parts)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [sock]}, daemon=True)
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive(), 60)
        self.http = httpx.Client(base_url=self.url, timeout=30)

    @property
    def name(self) -> str:
        """The first pipeline's."""
        return self.settings.pipelines[0]

    def stop(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def until_ready(self) -> None:
        until(lambda: self.http.get("/v2/health/ready").status_code == 200, 30)

    def until_revision(self, pipeline: Pipeline) -> None:
        """Until the pipeline's newest route is in force."""
        until(lambda: self.revision(pipeline.name) == pipeline.revision, 30)

    def revision(self, name: str) -> int | None:
        served = self.parts.fleet.served.get(name)
        return served.route.revision if served else None

    def counters(self, name: str, version: str) -> Any:
        return self.parts.fleet.served[name].models[version].counters

    def invoke(self, rows: list[dict[str, Any]], name: str) -> httpx.Response:
        return self.http.post(f"/pipelines/{name}/invocations", json={"dataframe_records": rows})

    def flushed(self) -> None:
        """Until the log's queue is empty."""
        assert self.parts.prediction_log is not None
        until(lambda: self.parts.prediction_log.waiting == 0, 30)  # type: ignore[union-attr]

    def metrics(self) -> dict[str, float]:
        """Sample to value, as scraped."""
        lines = (line for line in self.http.get("/metrics").text.splitlines() if not line.startswith("#"))
        return {sample: float(value) for sample, value in (line.rsplit(" ", 1) for line in lines)}


Serve = Callable[..., Running]


@pytest.fixture
def serve(mlflow: Mlflow, tmp_path: Path) -> Iterator[Serve]:
    """Start model servers; `serve(pipeline, ..., url=, **settings)`."""
    running: list[Running] = []

    def start(*pipelines: Pipeline, url: str | None = None, ready: bool = True, **settings: Any) -> Running:
        known = {
            "port": 0,
            "cache_dir": str(tmp_path / "cache"),
            "pipelines": tuple(p.name for p in pipelines),
            "poll_seconds": 0.1,
            "poll_max_seconds": 0.5,
            "log_flush_seconds": 0.1,
            "retry_seconds": 0.2,
            **settings,
        }
        server = Running(Platform(mlflow_url=url or mlflow.url, store=str(tmp_path / "store")), Settings(**known))
        running.append(server)
        if ready:
            server.until_ready()
        return server

    yield start
    for server in running:
        if server._thread.is_alive():
            server.stop()


@pytest.fixture(scope="session")
def one(mlflow: Mlflow, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with one pipeline and one version, shared by tests that do not look at its counters or change its route."""
    pipeline = Pipeline("flights", mlflow)
    mlflow.create(pipeline.name)
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    root = tmp_path_factory.mktemp("one")
    settings = Settings(port=0, cache_dir=str(root / "cache"), pipelines=(pipeline.name,), poll_seconds=0.1)
    server = Running(Platform(mlflow_url=mlflow.url, store=str(root / "store")), settings)
    server.until_ready()
    yield server
    server.stop()


@dataclass
class Flavours:
    """A server with one pipeline per kind of model: `fast` is a bundle, the others are logged by MLflow."""

    server: Running
    models: dict[str, Any]
    """Those that answer in the test, too, by pipeline."""
    grpc_port: int


@pytest.fixture(scope="session")
def flavours(mlflow: Mlflow, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flavours]:
    """Shared by tests that do not look at its counters or change its routes."""
    root = tmp_path_factory.mktemp("flavours")
    logging = Logging(mlflow.url, root)
    fast = Pipeline("fast", mlflow)
    mlflow.create(fast.name)
    pipelines = [fast, *(Pipeline(name, mlflow) for name in ("rules", "texts", "boosted", "matrix", "slow"))]
    fast.route({fast.register(bundles["one"]): 1.0})
    (texts, classifier), (boosted, regressor) = logging.texts("texts"), logging.boosted("boosted")
    versions = [logging.rules("rules"), texts, boosted, logging.matrix("matrix"), logging.slow("slow")]
    for pipeline, version in zip(pipelines[1:], versions, strict=True):
        pipeline.route({version: 1.0})
    mlflow.post("registered-models/set-tag", name="rules", key=names.TAG_ENTITY, value="customer")
    port = free_port()
    settings = Settings(
        port=0,
        grpc_port=port,
        cache_dir=str(root / "cache"),
        pipelines=tuple(each.name for each in pipelines),
        poll_seconds=0.1,
        log_flush_seconds=0.1,
    )
    server = Running(Platform(mlflow_url=mlflow.url, store=str(root / "store")), settings)
    until(lambda: server.http.get("/v2/health/ready").status_code == 200, 90)
    assert not server.parts.fleet.refused
    yield Flavours(server, {"texts": classifier, "boosted": regressor}, port)
    server.stop()


def until(condition: Callable[[], Any], seconds: float) -> None:
    """Wait; fail when it takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def row() -> dict[str, Any]:
    return dict(ROW)


@pytest.fixture
def wait() -> Callable[[Callable[[], Any], float], None]:
    return until
