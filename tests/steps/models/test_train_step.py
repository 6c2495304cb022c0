"""The training step against a real MLflow server: what a version carries, once per run key, nothing half done."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from perennial_features.bundle import Bundle
from perennial_spec import names
from perennial_spec.errors import BatchError, RegistryError
from perennial_spec.step import Verdict
from perennial_steps import train
from perennial_steps.training.tracking import Tracking, TrackingRest

PNG = b"\x89PNG"


def runs(lab: Any) -> list[dict[str, Any]]:
    base = f"{lab.room.platform.mlflow_url}/api/2.0/mlflow"
    found = httpx.get(f"{base}/experiments/get-by-name", params={"experiment_name": lab.name}, timeout=30).json()
    if "experiment" not in found:
        return []
    body = {"experiment_ids": [found["experiment"]["experiment_id"]]}
    listed: list[dict[str, Any]] = httpx.post(f"{base}/runs/search", json=body, timeout=30).json().get("runs", [])
    return listed


def artifacts(lab: Any, run: dict[str, Any], path: str) -> bytes:
    root = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    url = f"{lab.room.platform.mlflow_url}/api/2.0/mlflow-artifacts/artifacts/{root}/{path}"
    answer = httpx.get(url, timeout=30)
    assert answer.status_code == 200, (path, answer.text)
    return answer.content


def test_a_version_carries_everything_that_explains_it(lab: Any, trips: pa.Table, tmp_path: Path) -> None:
    pipeline = lab.pipeline()
    version = lab.land(trips)
    context = lab.context("train", "run-1", version, pipeline)
    outcome = train.run(context)

    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["model_version"] == "1"
    assert outcome.outputs["train_rows"] > 1500
    assert outcome.outputs["holdout"]["rows"] == 14 * 30
    assert outcome.metrics["holdout/roc_auc"] > 0.8
    assert outcome.summary.startswith("version 1, trained on ")

    with lab.registry as registry:
        found = registry.find_by_run_key(lab.name, "run-1")
        assert found is not None
        assert found.aliases == ()
        tags = found.tags
        assert tags[names.TAG_SPEC_DIGEST] == pipeline.digest
        assert (tags[names.TAG_DATA_URI], tags[names.TAG_DATA_VERSION]) == (lab.uri, str(version))
        assert json.loads(tags[names.TAG_REASON])["alert"] == "PerennialFeatureDrift"
        assert tags[names.TAG_VERDICT] == "registered"
        assert len(tags[names.TAG_LOCK_DIGEST]) == 64
        assert tags[names.TAG_CODE_VERSION]
        bundle = Bundle.load(registry.download_bundle(lab.name, "1", tmp_path))
    assert bundle.meta["run_key"] == "run-1"
    assert bundle.spec["name"] == lab.name
    assert bundle.reference.rows == len(trips) * 0.9
    attribution = bundle.reference.attribution
    assert attribution is not None
    assert list(attribution.features) == bundle.schema.feature_names
    assert sum(attribution.shares) == pytest.approx(1)
    assert outcome.outputs["holdout"]["rows"] < attribution.rows < bundle.reference.rows
    assert bundle.holdout is not None
    assert bundle.holdout.matrix.shape == (outcome.outputs["holdout"]["rows"], 3)
    np.testing.assert_array_equal(bundle.predict_encoded(bundle.holdout.matrix), bundle.holdout.predictions)

    (run,) = runs(lab)
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_id"] == outcome.outputs["run_id"] == found.run_id
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert params["max_depth"] == "3"
    assert params["data_version"] == str(version)
    logged = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert logged["holdout/roc_auc"] == pytest.approx(outcome.metrics["holdout/roc_auc"])
    for plot in ("roc", "calibration", "importance"):
        assert artifacts(lab, run, f"plots/{plot}.png").startswith(PNG)
    card = artifacts(lab, run, "model_card.md").decode()
    assert "feature drift: rain PSI 2.10 > 0.20 (alert)" in card
    assert "Columns kept from the model: arrived_at, group." in card
    assert {row["feature"] for row in json.loads(artifacts(lab, run, "reference_histograms.json"))} >= {
        "rain",
        "prediction",
    }
    assert json.loads(artifacts(lab, run, "reason.json"))["kind"] == "alert"
    assert artifacts(lab, run, "model/bundle/features.py") == pipeline.features_file.read_bytes()


def test_mlflow_itself_loads_the_registered_model_and_answers_on_raw_columns(
    lab: Any, trips: pa.Table, tmp_path: Path
) -> None:
    train.run(lab.context("train", "run-1", lab.land(trips), lab.pipeline()))
    import mlflow

    mlflow.set_tracking_uri(lab.room.platform.mlflow_url)
    model = mlflow.pyfunc.load_model(f"models:/{lab.name}/1")
    frame = trips.select(["rain", "load", "city"]).slice(0, 40).to_pandas()
    answers = model.predict(frame.astype({"load": "int64"}))
    with lab.registry as registry:
        bundle = Bundle.load(registry.download_bundle(lab.name, "1", tmp_path))
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    np.testing.assert_array_equal(answers, bundle.predict(bundle.columns(rows)))
    assert [(c.name, c.type.name, c.required) for c in model.metadata.signature.inputs] == [
        ("rain", "double", False),
        ("load", "long", True),
        ("city", "string", True),
    ]


def test_a_step_run_twice_makes_one_version_and_returns_the_same(lab: Any, trips: pa.Table) -> None:
    context = lab.context("train", "run-1", lab.land(trips), lab.pipeline())
    first, second = train.run(context), train.run(context)
    assert second.outputs == first.outputs
    assert len(runs(lab)) == 1
    with lab.registry as registry:
        assert [version.version for version in registry.versions(lab.name)] == ["1"]


def test_another_run_key_makes_another_version(lab: Any, trips: pa.Table) -> None:
    pipeline, version = lab.pipeline(), lab.land(trips)
    for key in ("run-1", "run-2"):
        train.run(lab.context("train", key, version, pipeline))
    with lab.registry as registry:
        assert [version.tags[names.TAG_RUN_KEY] for version in registry.versions(lab.name)] == ["run-1", "run-2"]


@pytest.mark.parametrize("point", ["train", "_log", "Registry.register"])
def test_killed_before_the_last_call_nothing_is_registered_and_the_next_attempt_is_whole(
    lab: Any, trips: pa.Table, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class Killed(BaseException):
        """As SIGTERM or SIGKILL would: nothing after it runs but what a `finally` does."""

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    context = lab.context("train", "run-1", lab.land(trips), lab.pipeline())
    with monkeypatch.context() as patch:
        owner = train.Registry if "." in point else train
        patch.setattr(owner, point.rsplit(".", 1)[-1], killed)
        with pytest.raises(Killed):
            train.run(context)
    with lab.registry as registry:
        assert registry.versions(lab.name) == []
        assert train.run(context).outputs["model_version"] == "1"
        assert len(registry.versions(lab.name)) == 1
    statuses = sorted(run["info"]["status"] for run in runs(lab))
    assert statuses == (["FINISHED", "FINISHED"] if point == "Registry.register" else ["FINISHED", "KILLED"])


def test_a_process_that_is_really_killed_leaves_no_version(lab: Any, trips: pa.Table) -> None:
    version = lab.land(trips)
    lab.pipeline(model="  tuning: {trials: 500, timeout: 5m}")
    process = lab.room.start(lab.request("train", "run-1", version))
    end = time.monotonic() + 120
    while time.monotonic() < end and not runs(lab):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.communicate()
    with lab.registry as registry:
        assert registry.versions(lab.name) == []
    assert [run["info"]["status"] for run in runs(lab)] == ["RUNNING"]
    code, result, log = lab.room.process(
        lab.request("train", "run-1", version).model_copy(update={"spec_digest": lab.pipeline().digest})
    )
    assert code == 0, log
    assert result.outputs["model_version"] == "1"
    assert sorted(run["info"]["status"] for run in runs(lab)) == ["FINISHED", "KILLED"]


def test_bad_data_fails_the_run_registers_nothing_and_says_why(lab: Any, trips: pa.Table) -> None:
    version = lab.land(trips.set_column(2, "rain", pa.nulls(len(trips), pa.float64())))
    lab.pipeline()
    code, result, _ = lab.room.process(lab.request("train", "run-1", version))
    assert code == Verdict.FAIL.exit_code
    assert result.failure is not None
    assert result.failure.type == BatchError.__name__
    assert "feature 'rain' is missing in all" in result.failure.message
    assert [run["info"]["status"] for run in runs(lab)] == ["FAILED"]
    with lab.registry as registry:
        assert registry.versions(lab.name) == []


def test_without_mlflow_the_step_says_so_before_it_reads_anything(offline_lab: Any) -> None:
    away = replace(offline_lab, room=offline_lab.room.with_platform(mlflow_url="http://127.0.0.1:9"))
    with pytest.raises(RegistryError, match="does not answer"):
        train.run(away.context("train", "run-1", 0, away.pipeline()))


def test_a_step_imports_neither_mlflow_nor_scikit_learn_nor_what_it_was_not_asked_for(
    lab: Any, trips: pa.Table
) -> None:
    import subprocess
    import sys

    lab.pipeline()
    request = lab.request("train", "run-1", lab.land(trips))
    code = (
        "import sys; from perennial_spec.step import StepRequest; from perennial_spec.platform import Platform;"
        "from perennial_steps.runner import run_step;"
        f"result = run_step(StepRequest.model_validate_json({request.model_dump_json()!r}), Platform.from_environment());"
        "print(result.verdict, sorted({'mlflow', 'sklearn', 'optuna', 'great_expectations'} & set(sys.modules)))"
    )
    import os

    environment = {**os.environ, **lab.room.platform.to_environment()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "pass []", done.stderr


def test_an_upload_that_is_refused_is_told(lab: Any, tmp_path: Path) -> None:
    rest = TrackingRest(lab.room.platform.mlflow_url)
    tracking = Tracking(rest, lab.name)
    run = tracking.start("run-1", {names.TAG_RUN_KEY: "run-1", names.TAG_STEP: "train"})
    (tmp_path / "x").write_text("x")
    wrong = replace(run, artifact_uri="mlflow-artifacts:/../../etc")
    with pytest.raises(RegistryError, match="MLflow refused to take the artifacts"):
        tracking.upload(wrong, tmp_path)
    with pytest.raises(RegistryError, match="MLflow refused to find the run nowhere"):
        tracking.get("nowhere")
    rest.close()
