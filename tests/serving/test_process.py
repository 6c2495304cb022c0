"""The server as a process: it starts from its environment, says clearly why it cannot, and ends in order."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from deltalake import DeltaTable

from perennial_serving.settings import Settings
from perennial_spec import logs
from perennial_spec.errors import PlatformError


def start(tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PERENNIAL_", "MLFLOW_"))}
    known |= {
        "PERENNIAL_PORT": "0",
        "PERENNIAL_HOME": str(tmp_path),
        "PERENNIAL_STORE": str(tmp_path / "store"),
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "perennial_serving"], env=known, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


def address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"listening on (http://\S+)", line):
            return found[1]
    raise AssertionError("it never listened")


def test_sigterm_finishes_running_requests_writes_the_log_and_exits_0(
    pipeline: Any, bundles: Any, row: Any, tmp_path: Path, wait: Any
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    process = start(
        tmp_path,
        MLFLOW_TRACKING_URI=pipeline.mlflow.url,
        PERENNIAL_SERVING_PIPELINES=pipeline.name,
        PERENNIAL_SERVING_LOG_FLUSH_SECONDS="600",
        PERENNIAL_SERVING_DRAIN_SECONDS="0.5",
    )
    url = address(process)
    rest: list[str] = []
    reader = threading.Thread(target=lambda: rest.append(process.stderr.read()))  # type: ignore[union-attr]
    reader.start()
    with httpx.Client(base_url=url, timeout=30) as client:

        def ready() -> bool:
            try:
                return client.get("/v2/health/ready").status_code == 200
            except httpx.ConnectError:
                return False

        wait(ready, 60)
        for n in range(20):
            assert client.post("/invocations", json={"inputs": {**row, "carrier": f"SECRET{n}"}}).status_code == 200
        process.send_signal(signal.SIGTERM)
        # While load balancers find out, it answers, and says that it is about to leave.
        wait(lambda: client.get("/v2/health/ready").status_code == 503, 10)
        answer = client.post("/invocations", json={"inputs": row})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert process.wait(30) == 0
    reader.join()
    assert DeltaTable(f"{tmp_path}/store/{pipeline.name}/{logs.PREDICTIONS}").to_pyarrow_table().num_rows == 21
    assert "SECRET" not in rest[0]
    assert "Traceback" not in rest[0]


def failure(process: subprocess.Popen[str]) -> str:
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in text
    return text


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = failure(start(tmp_path, PERENNIAL_PORT=str(port), MLFLOW_TRACKING_URI="http://127.0.0.1:1"))
    assert f"cannot listen on 127.0.0.1:{port}" in text
    assert "PERENNIAL_PORT" in text


def test_a_taken_port_for_grpc_is_named_and_leaves_nothing_running(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(tmp_path, PERENNIAL_GRPC_PORT=str(port), MLFLOW_TRACKING_URI="http://127.0.0.1:1")
        # Its processes hold their ends of this pipe: reading it to its end waits for all of them.
        text = failure(process)
    assert f"cannot listen on 127.0.0.1:{port} for gRPC" in text
    assert "PERENNIAL_GRPC_PORT" in text
    left = [each for each in psutil.process_iter(["cmdline", "cwd"]) if each.info["cwd"] == str(tmp_path)]
    assert left == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "MLFLOW_TRACKING_URI is not set"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///secret.db"}, "MLFLOW_TRACKING_URI is sqlite:..."),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "PERENNIAL_PORT": "http"}, "PERENNIAL_PORT is 'http'"),
        (
            {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "PERENNIAL_HOME": "/proc/nowhere"},
            "the cache folder cannot be made",
        ),
    ],
)
def test_an_environment_that_cannot_work_is_refused_by_name(tmp_path: Path, environment: Any, words: str) -> None:
    assert words in failure(start(tmp_path, **environment))


def test_settings_come_from_the_environment() -> None:
    found = Settings.from_environment(
        {
            "PERENNIAL_HOST": "0.0.0.0",
            "PERENNIAL_PORT": "80",
            "PERENNIAL_HOME": "/h",
            "PERENNIAL_SERVING_PIPELINES": "a, b",
            "PERENNIAL_SERVING_POLL_SECONDS": "0.5",
        }
    )
    assert (found.host, found.port, found.cache_dir) == ("0.0.0.0", 80, "/h/serving")
    assert (found.pipelines, found.poll_seconds) == (("a", "b"), 0.5)
    assert Settings.from_environment({}) == Settings()


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_setting_that_is_no_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(PlatformError, match="PERENNIAL_SERVING_GRACE_SECONDS"):
        Settings.from_environment({"PERENNIAL_SERVING_GRACE_SECONDS": text})


def test_the_server_imports_neither_pandas_nor_mlflow_nor_sklearn_nor_airflow() -> None:
    code = (
        "import sys, perennial_serving.server, perennial_features.engine as e; e.load_xgboost();"
        "from perennial_serving import tables; tables.warm();"
        "print(sorted({'pandas', 'mlflow', 'sklearn', 'airflow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
