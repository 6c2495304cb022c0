"""What is promised of a rollback: from the order to the last answer of the version that leaves at most 5 seconds, and no failed request.

Four model servers as users start them, with their own settings and in processes of their own, follow a real MLflow under load. Nothing has
grace: a rollback finds what it finds an hour after a promotion.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from load import Load

from perennial_cli.embedded import connection
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.lock import held
from perennial_registry.promotion import plan, promote
from perennial_registry.registry import Registry
from perennial_spec.platform import Platform

SERVERS, CONNECTIONS = 4, 8
PROMISED = 5.0
"""Seconds."""
SPEC = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: ops, contact: ops@example.com}}
data: {{sources: {{flights: flights.parquet}}, timestamp: departure, entity: flight_id, label: {{column: late}}}}
model: {{kind: xgboost.classifier}}
evaluation: {{metric: roc_auc, gates: [{{metric: roc_auc, min: 0.6}}]}}
"""


@pytest.fixture
def fleet(pipeline: Any, bundles: Any, tmp_path: Path, wait: Any) -> Iterator[list[str]]:
    """The addresses of the servers; version 2 is champion, after version 1."""
    with Registry(pipeline.mlflow.url) as registry:
        for bundle in ("one", "two"):
            version = pipeline.register(bundles[bundle])
            promote(registry, plan(registry, pipeline.name, version, force=True), "the test")
    processes = [_start(tmp_path / f"server-{n}", pipeline) for n in range(SERVERS)]
    try:
        urls = [wait_for(lambda n=n: _address(tmp_path / f"server-{n}"), wait) for n in range(SERVERS)]
        wait(lambda: all(_is_ready(url) for url in urls), 60)
        wait(lambda: all("is on standby" in (tmp_path / f"server-{n}/log").read_text() for n in range(SERVERS)), 60)
        yield urls
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            assert process.wait(30) == 0


def _start(folder: Path, pipeline: Any) -> subprocess.Popen[bytes]:
    folder.mkdir()
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PERENNIAL_", "MLFLOW_"))}
    known |= {
        "PERENNIAL_PORT": "0",
        "PERENNIAL_HOME": str(folder),
        "MLFLOW_TRACKING_URI": pipeline.mlflow.url,
        "PERENNIAL_SERVING_PIPELINES": pipeline.name,
        "PERENNIAL_SERVING_GRACE_SECONDS": "0",
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "perennial_serving"], env=known, stderr=log, cwd=folder)


def _address(folder: Path) -> str | None:
    found = re.search(r"listening on (http://\S+)", (folder / "log").read_text())
    return found[1] if found else None


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(find: Any, wait: Any) -> str:
    wait(lambda: find() is not None, 60)
    return str(find())


@pytest.fixture
def command(pipeline: Any, tmp_path: Path) -> Iterator[Any]:
    """`perennial` as a person calls it, beside a platform whose registry alone is there."""
    home = Home(tmp_path / "home")
    home.prepare()
    folder = tmp_path / "pipelines" / pipeline.name
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(SPEC.format(name=pipeline.name))
    (folder / "features.py").write_text("def features(columns):\n    return columns\n")
    connection.save(home, Platform(mlflow_url=pipeline.mlflow.url, pipelines_dir=str(folder.parent)))

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith(("PERENNIAL_", "MLFLOW_"))}
        return subprocess.run(
            [sys.executable, "-m", "perennial_cli", *arguments],
            env={**known, "PERENNIAL_HOME": str(home.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    with held(home.lock):
        yield call


def test_a_version_is_taken_back_within_seconds_and_promoted_again_and_no_request_fails(
    fleet: list[str], command: Any, pipeline: Any, row: Any, wait: Any
) -> None:
    # The two cores of a small machine also have a registry and a command to run: a pause.
    load = Load(fleet, f"/pipelines/{pipeline.name}/invocations", [row], CONNECTIONS, pause=0.01)
    with load.on():
        wait(lambda: load.all_answer("2", 0), 30)
        ordered = time.time()
        done = command("rollback", pipeline.name, "--no-wait", "--reason", "the test prefers the old one")
        assert done.returncode == 0, done.stderr
        assert "2: 100% -> 1: 100%; rolled back: 2" in done.stdout
        assert "the ledger does not know of this" in done.stderr, "there is no controller, and it must not matter"
        wait(lambda: load.all_answer("1", ordered), 30)
        took = load.last_of("2") - ordered

        refused = command("promote", pipeline.name, "--version", "2")
        assert refused.returncode == 1
        assert "version 2 of" in refused.stderr
        assert "was rolled back" in refused.stderr
        assert "Traceback" not in refused.stderr
        arguments = ("promote", pipeline.name, "--version", "2", "--force", "--no-wait")
        planned = command(*arguments, "--dry-run")
        assert "1: 100% -> 2: 100%; champion: 1 -> 2" in planned.stdout
        assert load.all_answer("1", ordered), "a dry run changes nothing"
        promoted = time.time()
        done = command(*arguments, "--reason", "it was right")
        assert done.returncode == 0, done.stderr
        assert "version 2 is champion" in done.stdout
        wait(lambda: load.all_answer("2", promoted), 60)  # which has to be loaded first
    assert load.failures == []
    assert load.statuses == {200}
    assert took < PROMISED


def test_a_promotion_of_an_unknown_pipeline_is_answered_with_those_that_are_there(command: Any, pipeline: Any) -> None:
    done = command("promote", f"{pipeline.name}x")
    assert done.returncode == 2
    assert f"did you mean '{pipeline.name}'?" in done.stderr
