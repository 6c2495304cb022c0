"""What the tests of operators share: one Airflow of their own per test process, pipelines in folders, and steps as real processes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from perennial_spec.load import Pipeline, load_pipeline

# Airflow reads its home when it is first imported, and these files are what imports it.
HOME = Path(tempfile.mkdtemp(prefix="perennial-test-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
shutil.copytree(
    Path(__file__).parents[2] / "dags", HOME / "dags", ignore=shutil.ignore_patterns("pipelines", "examples")
)
(HOME / "airflow.cfg").write_text(
    dedent(f"""\
    [core]
    load_examples = False
    dags_folder = {HOME / "dags"}
    executor = LocalExecutor
    [database]
    sql_alchemy_conn = sqlite:///{HOME}/airflow.db
    [api_auth]
    jwt_secret = {"t" * 64}
    [usage_data_collection]
    enabled = False
    """)
)
os.environ["AIRFLOW_HOME"] = str(HOME)

SPEC: dict[str, object] = {
    "apiVersion": "perennial/v1",
    "name": "churn",
    "owner": {"team": "growth", "contact": "growth@example.com"},
    "data": {
        "sources": {"customers": "/lake/customers/*.parquet"},
        "timestamp": "seen_at",
        "entity": "customer_id",
        "label": {"column": "left"},
    },
    "model": {"kind": "xgboost.classifier"},
    "evaluation": {"metric": "roc_auc", "gates": [{"metric": "roc_auc", "min": 0.7}]},
}

Write = Callable[..., Path]


@pytest.fixture
def write_pipeline(tmp_path: Path) -> Write:
    """Writes a pipeline's folder: the smallest good one, and what the test changes of it."""

    def write(folder: str = "churn", root: Path | None = None, **changes: object) -> Path:
        path = (root or tmp_path / "pipelines") / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "pipeline.yaml").write_text(yaml.safe_dump(SPEC | {"name": folder} | changes))
        (path / "features.py").write_text("def features(columns):\n    return dict(columns)\n")
        return path

    return write


@pytest.fixture(scope="session")
def airflow_dags() -> Path:
    """The DAG folder of the test process's own Airflow: the project's DAG files, and no pipeline until a test writes one."""
    return HOME / "dags"


@pytest.fixture
def pipeline(write_pipeline: Write) -> Pipeline:
    return load_pipeline(write_pipeline())


@pytest.fixture
def dags_folder(tmp_path: Path) -> Path:
    """The project's own DAG files over pipelines of the test."""
    folder = tmp_path / "dags"
    source = Path(__file__).parents[2] / "dags"
    folder.mkdir()
    for name in ("continuous_training.py", "broken_pipelines.py", ".airflowignore"):
        shutil.copy(source / name, folder)
    (folder / "pipelines").mkdir()
    return folder


@pytest.fixture
def steps_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a `perennial_steps` in front of the real one, for child processes only: a real process that does what the test says.

    The body sees `request`, and writes its result with `done(verdict, outputs)`.
    """

    def install(body: str) -> None:
        package = tmp_path / "front" / "perennial_steps"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(_STEP + dedent(body))
        monkeypatch.setenv("PYTHONPATH", str(package.parent))

    return install


_STEP = """\
import json, os, signal, subprocess, sys, time
from perennial_spec.step import StepFailure, StepResult, read_request, write_result

request = read_request()


def done(verdict="pass", outputs=None, failure=None, **more):
    failure = StepFailure(type="Test", message=failure) if failure else None
    values = {"step": request.step, "run_key": request.run_key, "summary": "as told", **more}
    write_result(StepResult(verdict=verdict, outputs=outputs or {}, failure=failure, **values))
    sys.exit(StepResult(verdict=verdict, **values).verdict.exit_code)


"""
