"""All servers of the comparison, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.serving.data import PIPELINE

HERE = Path(__file__).parent
PEERS = HERE / "peers"
MAIN, MLSERVER = PEERS / ".venv", PEERS / "mlserver" / ".venv"
REFERENCE = "mlflow"
"""The server that ratios are to."""


@dataclass(frozen=True)
class Place:
    """Where one start of a server happens."""

    port: int
    model: Path
    """What `data.train` and `peers/prepare.py` wrote."""
    scratch: Path
    """An empty folder of this start."""
    registry: str
    """URL of the registry; only ours reads it."""
    native: Path
    """The folder that `perennial_native` is in."""
    tools: Path
    """Compiled C programs."""


Command = Callable[[Place], list[str]]
Environment = Callable[[Place], Mapping[str, str]]


@dataclass(frozen=True)
class Server:
    name: str
    title: str
    form: str
    """In `data.FORMS`."""
    path: str
    command: Command
    kind: str
    """`ours`; `product`: others' servers; `written`: written for this benchmark; `hello`: no model."""
    environment: Environment = field(default=lambda _: {})
    venv: Path | None = None
    """The environment that it needs."""
    needs: str | None = None
    """A file in the model's folder, without which it is left out."""


def _python(script: str, *words: str, model: bool = True, tail: tuple[str, ...] = ()) -> Command:
    """A script of the peers: its port, words, the model's folder, and more words."""
    return lambda place: [
        str(MAIN / "bin" / "python"),
        str(PEERS / script),
        str(place.port),
        *words,
        *([str(place.model)] if model else []),
        *tail,
    ]


def _ours(place: Place) -> Mapping[str, str]:
    return {
        "PERENNIAL_PORT": str(place.port),
        "PERENNIAL_HOME": str(place.scratch),
        "PERENNIAL_STORE": str(place.scratch / "store"),
        "PERENNIAL_SERVING_PIPELINES": PIPELINE,
        "MLFLOW_TRACKING_URI": place.registry,
    }


def _mlflow(place: Place) -> list[str]:
    words = ["models", "serve", "-m", str(place.model / "mlflow"), "--env-manager", "local", "--workers", "1"]
    return [str(MAIN / "bin" / "mlflow"), *words, "--host", "127.0.0.1", "--port", str(place.port)]


def _bentoml(place: Place) -> list[str]:
    where = ["--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", str(place.port)]
    return [str(MAIN / "bin" / "bentoml"), "serve", "bentoml_service:Trees", *where]


def _bentoml_environment(place: Place) -> Mapping[str, str]:
    home = place.scratch / "bentoml"
    home.mkdir()
    return {
        "BENCH_MODEL": str(place.model),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_CONFIG_OPTIONS": "services.Trees.logging.access.enabled=false",
    }


def _mlserver(place: Place) -> list[str]:
    return [str(MLSERVER / "bin" / "mlserver"), "start", str(place.model / "mlserver")]


def _mlserver_environment(place: Place) -> Mapping[str, str]:
    """Answering in its own process: with a process for the model beside it, two would share the one core."""
    from bench.serving.process import free_port

    return {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(place.port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_DEBUG": "false",
    }


def _native(place: Place) -> Mapping[str, str]:
    return {"PYTHONPATH": str(place.native)}


def _mlflow_environment(_: Place) -> Mapping[str, str]:
    return {"MLFLOW_DISABLE_TELEMETRY": "true", "UVICORN_ACCESS_LOG": "false", "PATH": f"{MAIN / 'bin'}:/usr/bin:/bin"}


SERVERS = (
    Server(
        "ours",
        "Perennial, all features on",
        "ours",
        f"/pipelines/{PIPELINE}/invocations",
        lambda _: [sys.executable, "-m", "perennial_serving"],
        "ours",
        _ours,
    ),
    Server(REFERENCE, "mlflow models serve", "split", "/invocations", _mlflow, "product", _mlflow_environment, MAIN),
    Server("bentoml", "BentoML", "bentoml", "/predict", _bentoml, "product", _bentoml_environment, MAIN),
    Server(
        "kserve-v1",
        "KServe SDK, V1",
        "v1",
        "/v1/models/bench:predict",
        _python("kserve_server.py"),
        "product",
        venv=MAIN,
    ),
    Server(
        "kserve-v2",
        "KServe SDK, V2",
        "v2",
        "/v2/models/bench/infer",
        _python("kserve_server.py"),
        "product",
        venv=MAIN,
    ),
    Server(
        "mlserver",
        "MLServer with mlserver-xgboost",
        "v2",
        "/v2/models/bench/infer",
        _mlserver,
        "product",
        _mlserver_environment,
        MLSERVER,
    ),
    Server(
        "starlette",
        "Starlette, uvicorn, `inplace_predict`",
        "split",
        "/invocations",
        _python("starlette_app.py"),
        "written",
        venv=MAIN,
    ),
    Server(
        "uvloop",
        "uvloop protocol, `inplace_predict`",
        "split",
        "/",
        _python("protocol.py", "inplace"),
        "written",
        venv=MAIN,
    ),
    Server(
        "uvloop-batch",
        "the same with micro-batching",
        "split",
        "/",
        _python("protocol.py", "inplace", tail=("batch",)),
        "written",
        venv=MAIN,
    ),
    Server(
        "onnx",
        "uvloop protocol, ONNX Runtime, micro-batching",
        "split",
        "/",
        _python("protocol.py", "onnx", tail=("batch",)),
        "written",
        venv=MAIN,
        needs="model.onnx",
    ),
    Server(
        "asgi-forest",
        "raw ASGI on uvicorn, compiled forest",
        "split",
        "/",
        _python("asgi.py", "forest"),
        "written",
        _native,
        MAIN,
        "flat",
    ),
    Server(
        "uvloop-forest",
        "uvloop protocol, compiled forest, micro-batching",
        "split",
        "/",
        _python("protocol.py", "forest", tail=("batch",)),
        "written",
        _native,
        MAIN,
        "flat",
    ),
    Server(
        "asgi-hello",
        "hello: raw ASGI on uvicorn",
        "split",
        "/",
        _python("asgi.py", "hello"),
        "hello",
        venv=MAIN,
    ),
    Server(
        "c-hello", "hello: C, epoll", "split", "/", lambda place: [str(place.tools / "hello"), str(place.port)], "hello"
    ),
)
