"""Fitting: parameters are checked, categories and missing values are native, a search never ends with less than it began with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial_features.code import load_features
from perennial_spec.errors import BatchError, FeatureError, SpecError
from perennial_spec.load import Pipeline
from perennial_steps.training.dataset import assemble, divide
from perennial_steps.training.fit import Material, fit
from perennial_steps.training.model import Trained, measured
from perennial_steps.training.prepare import Prepared, prepare
from perennial_steps.training.versions import code_version, lock_digest


def prepared(pipeline: Pipeline, table: pa.Table) -> Prepared:
    spec = pipeline.spec
    dataset = assemble(table, spec.data, spec.model.kind)
    parts = divide(dataset, spec.model.split, spec.model.kind)
    return prepare(dataset, parts, load_features(pipeline.features_file, pipeline.features_function))


def material(pipeline: Pipeline, table: pa.Table) -> Material:
    made = prepared(pipeline, table)
    metric = pipeline.spec.evaluation.metric
    return Material(made.encoded.matrix, made.dataset.label, made.schema, made.parts, metric, threads=1)


def trained(pipeline: Pipeline, table: pa.Table) -> Trained:
    made, stuff = prepared(pipeline, table), material(pipeline, table)
    code = load_features(pipeline.features_file, pipeline.features_function)
    return measured(pipeline.spec, code, made, fit(stuff, pipeline.spec.model), {})


def test_what_the_data_hides_is_found(offline_lab: Any, trips: pa.Table) -> None:
    found = trained(offline_lab.pipeline(), trips)
    assert found.metrics["holdout/roc_auc"] > 0.8
    assert max(found.importance, key=lambda name: found.importance[name]) == "rain"
    assert set(found.importance) >= {"rain", "city"}  # categories take part


def test_early_stopping_cuts_the_model_to_its_best_round(offline_lab: Any, trips: pa.Table) -> None:
    stopped = trained(offline_lab.pipeline(model="  early_stopping: 5"), trips)
    assert stopped.fitted.rounds < 60
    assert stopped.bundle.booster is stopped.fitted.booster
    assert stopped.fitted.booster.num_boosted_rounds() == stopped.fitted.rounds
    whole = trained(offline_lab.pipeline(model="  early_stopping: null"), trips)
    assert whole.fitted.rounds == 60


def test_the_same_data_and_seed_give_the_same_model(offline_lab: Any, trips: pa.Table) -> None:
    pipeline = offline_lab.pipeline()
    np.testing.assert_array_equal(trained(pipeline, trips).scores, trained(pipeline, trips).scores)


def test_a_regressor_is_trained_and_measured(offline_lab: Any, trips: pa.Table) -> None:
    rain = np.nan_to_num(trips.column("rain").to_numpy())
    table = trips.set_column(7, "late", pa.array(30 * rain + np.random.default_rng(0).normal(size=len(rain))))
    pipeline = offline_lab.pipeline(kind="xgboost.regressor", metric="rmse", gates=("{metric: r2, min: 0.5}",))
    found = trained(pipeline, table)
    assert found.metrics["holdout/r2"] > 0.85
    assert set(found.metrics) == {
        f"{part}/{name}" for part in ("validation", "holdout") for name in ("rmse", "mae", "r2")
    }


def test_categories_new_after_training_are_unseen_in_the_holdout_as_they_would_be_in_service(
    offline_lab: Any, trips: pa.Table
) -> None:
    city = trips.column("city").to_pylist()
    city[-100:] = ["Atlantis"] * 100
    found = trained(offline_lab.pipeline(), trips.set_column(4, "city", pa.array(city)))
    schema = found.bundle.schema
    assert "Atlantis" not in schema.features[schema.feature_names.index("city")].categories
    reference = found.bundle.reference
    other = reference.series.index(("city", "other"))
    assert reference.counts[other] == 100


def test_only_the_columns_that_are_read_must_be_sent(offline_lab: Any, trips: pa.Table) -> None:
    found = trained(offline_lab.pipeline(), trips)
    assert [(c.name, c.kind, c.nullable) for c in found.bundle.schema.inputs] == [
        ("rain", "number", True),
        ("load", "integer", False),
        ("city", "text", False),
    ]


@pytest.mark.parametrize("column", ["late", "group", "arrived_at"])
def test_label_sensitive_and_excluded_columns_cannot_be_read(offline_lab: Any, trips: pa.Table, column: str) -> None:
    pipeline = offline_lab.pipeline(features=f"def features(columns):\n    return {{'x': columns['{column}']}}\n")
    with pytest.raises(FeatureError, match=f"reads the column '{column}', which is not among the inputs"):
        prepared(pipeline, trips)


def test_a_feature_that_is_missing_in_all_rows_stops_and_is_named(offline_lab: Any, trips: pa.Table) -> None:
    rain = trips.column("rain").to_pylist()
    rain[:2500] = [None] * 2500  # the rows to train on; the newest still have it
    with pytest.raises(BatchError, match=r"feature 'rain' is missing in all 2,3\d\d rows to train on") as caught:
        prepared(offline_lab.pipeline(), trips.set_column(2, "rain", pa.array(rain)))
    assert caught.value.where.endswith("features.py:1")


def test_feature_code_without_features_stops(offline_lab: Any, trips: pa.Table) -> None:
    with pytest.raises(FeatureError, match="returned no features"):
        prepared(offline_lab.pipeline(features="def features(columns):\n    return {}\n"), trips)


def test_features_that_depend_on_other_rows_stop(offline_lab: Any, trips: pa.Table) -> None:
    text = "import numpy as np\n\n\ndef features(columns):\n    rain = columns['rain']\n"
    text += "    return {'rain': rain - np.nanmean(rain) * 9, 'rank': np.argsort(np.argsort(rain))}\n"
    with pytest.raises(FeatureError, match="the features of a row depend on the rows around it") as caught:
        trained(offline_lab.pipeline(features=text), trips)
    assert caught.value.where.endswith("features.py:4")


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ("{max_dpeth: 3}", "model.params.max_dpeth is not a parameter of XGBoost; did you mean 'max_depth'"),
        ("{max_depth: -3}", "XGBoost refuses model.params: value -3 for Parameter max_depth"),
        ("{max_depth: deep}", "Invalid Parameter format for max_depth"),
        ("{subsample: 2}", r"value 2 for Parameter subsample exceed bound"),
        ("{nthread: 4}", "model.params.nthread is set by the platform"),
        ("{eval_metric: auc}", "model.params.eval_metric is set by the platform"),
        ("{objective: 'multi:softmax'}", "model.params.objective is 'multi:softmax' for a xgboost.classifier"),
    ],
)
def test_a_wrong_parameter_is_named(offline_lab: Any, trips: pa.Table, params: str, what: str) -> None:
    pipeline = offline_lab.pipeline()
    file = pipeline.folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("{max_depth: 3, learning_rate: 0.3}", params))
    from perennial_spec.load import load_pipeline

    pipeline = load_pipeline(pipeline.folder)
    with pytest.raises(SpecError, match=what) as caught:
        fit(material(pipeline, trips), pipeline.spec.model)
    assert caught.value.where == "pipeline.yaml: model.params"


def test_a_search_tries_the_defaults_first_keeps_what_the_spec_fixes_and_ends_with_the_best(
    offline_lab: Any, trips: pa.Table
) -> None:
    pipeline = offline_lab.pipeline(model="  tuning: {trials: 4, timeout: 2m}")
    found = fit(material(pipeline, trips), pipeline.spec.model)
    assert len(found.trials) == 4
    assert found.trials[0]["subsample"] == 1.0
    assert all("max_depth" not in trial for trial in found.trials)  # fixed by the spec
    assert found.params["max_depth"] == 3
    best = max(found.trials, key=lambda trial: trial["roc_auc"])
    assert found.validation == best["roc_auc"]
    assert found.params["subsample"] == best["subsample"]
    again = fit(material(pipeline, trips), pipeline.spec.model)
    assert again.trials == found.trials  # seeded


def test_a_search_of_a_loss_looks_for_the_least(offline_lab: Any, trips: pa.Table) -> None:
    pipeline = offline_lab.pipeline(metric="log_loss", model="  tuning: {trials: 3, timeout: 2m}")
    found = fit(material(pipeline, trips), pipeline.spec.model)
    assert found.validation == min(trial["log_loss"] for trial in found.trials)


def test_a_search_out_of_time_still_has_a_model(offline_lab: Any, trips: pa.Table) -> None:
    pipeline = offline_lab.pipeline(model="  tuning: {trials: 50, timeout: 1ms}")
    found = fit(material(pipeline, trips), pipeline.spec.model)
    assert len(found.trials) == 1
    assert math.isfinite(found.validation)


def test_the_lock_digest_is_of_the_lock_file_or_else_of_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERENNIAL_LOCK_FILE", raising=False)
    installed = lock_digest()
    assert installed == lock_digest()
    lock = tmp_path / "uv.lock"
    lock.write_text("")
    monkeypatch.setenv("PERENNIAL_LOCK_FILE", str(lock))
    assert lock_digest() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert installed != lock_digest()


def test_the_code_version_is_a_commit_a_stated_one_or_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version(tmp_path).startswith("perennial-steps ")
    commands = (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    )
    for command in commands:
        subprocess.run(["git", *command], cwd=tmp_path, check=True, timeout=30)
    assert len(code_version(tmp_path)) == 12
    (tmp_path / "features.py").write_text("")
    assert code_version(tmp_path).endswith("-dirty")
    monkeypatch.setenv("PERENNIAL_CODE_VERSION", "v1.2")
    assert code_version(tmp_path) == "v1.2"
