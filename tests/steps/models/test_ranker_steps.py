"""A ranker from the table to the registry and past the gates, on a real Delta table and a real MLflow server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from perennial_features.bundle import Bundle
from perennial_features.code import load_features
from perennial_spec import names
from perennial_spec.errors import SpecError
from perennial_spec.step import Verdict
from perennial_steps import evaluate, train
from perennial_steps.training.dataset import assemble, divide
from perennial_steps.training.fit import Fitted, Material, fit
from perennial_steps.training.prepare import prepare

SETTINGS = {
    "kind": "xgboost.ranker",
    "metric": "ndcg",
    "model": "  group: query",
    "gates": (
        "{metric: ndcg, min: 0.6}",
        "{metric: map, min: 0.5}",
        "{against: champion, min_gain: 0.0}",
        "{slice: group, metric: ndcg, min: 0.5}",
    ),
}
FEATURES = """\
def features(columns):
    return {"price": columns["price"], "stars": columns["stars"], "brand": columns["brand"]}
"""


def offers(seed: int = 0, *, cheap: float = 2.0, lists: int = 600, days: int = 100) -> pa.Table:
    """What was shown for each query over `days`; people like stars, and low prices by `cheap`."""
    generator = np.random.default_rng(seed)
    query = np.repeat(np.arange(lists), generator.integers(3, 9, lists))
    rows = len(query)
    price, stars = generator.normal(size=rows), generator.integers(1, 6, rows)
    brand = generator.choice(np.array(["a", "b", None], dtype=object), rows, p=[0.5, 0.4, 0.1])
    liking = stars - cheap * price + (brand == "a") + generator.normal(size=rows) - 3
    start = np.datetime64("2013-01-01", "us")
    at = pa.array(start + (query * (days * 86400 // lists)).astype("timedelta64[s]"), pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "trip_id": [f"o{seed}-{row}" for row in range(rows)],
            "at": at,
            "query": [f"q{number}" for number in query],
            "price": pa.array(price, mask=generator.random(rows) < 0.05),
            "stars": stars,
            "brand": brand.tolist(),
            "group": np.where(query % 2 == 0, "north", "south").tolist(),
            "arrived_at": at,
            "late": np.clip(np.round(liking / 2), 0, 4).astype(int),
        }
    )


def trained(lab: Any, table: pa.Table, key: str, **settings: Any) -> tuple[int, Any]:
    version = lab.land(table)
    pipeline = lab.pipeline(FEATURES, **{**SETTINGS, **settings})
    return version, train.run(lab.context("train", key, version, pipeline))


def judged(lab: Any, key: str, version: int, model: str, **settings: Any) -> Any:
    pipeline = lab.pipeline(FEATURES, **{**SETTINGS, **settings})
    return evaluate.run(lab.context("evaluate", key, version, pipeline, model_version=model))


def artifact(lab: Any, version: str, path: str) -> bytes:
    with lab.registry as registry:
        root = registry.get(lab.name, version).source.removesuffix("/model").removeprefix("mlflow-artifacts:/")
    answer = httpx.get(f"{lab.room.platform.mlflow_url}/api/2.0/mlflow-artifacts/artifacts/{root}/{path}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_ranker_is_trained_explained_and_answers_as_in_training(lab: Any, tmp_path: Path) -> None:
    _, outcome = trained(lab, offers(), "run-1")
    assert outcome.verdict is Verdict.PASS
    assert outcome.metrics["holdout/ndcg"] > 0.8
    assert "ndcg 0." in outcome.summary
    with lab.registry as registry:
        bundle = Bundle.load(registry.download_bundle(lab.name, "1", tmp_path))
    assert bundle.kind == "xgboost.ranker"
    assert set(bundle.schema.feature_names) == {"price", "stars", "brand"}
    assert bundle.holdout is not None
    bundle.holdout.verify(bundle.booster)
    worse = {"price": [3.0, None, -3.0], "stars": [1, 3, 5], "brand": ["b", None, "a"]}
    assert np.all(np.diff(bundle.predict(bundle.columns(worse))) > 0)
    prediction = bundle.reference.features[-1]
    assert prediction.feature == names.PREDICTION_FEATURE
    assert len(prediction.edges) > 3
    assert artifact(lab, "1", "plots/ranking.png").startswith(b"\x89PNG")
    card = artifact(lab, "1", "model_card.md").decode()
    assert "Model: xgboost.ranker" in card
    assert "Columns kept from the model: arrived_at, group, query. Rows are ranked within each `query`" in card
    assert "| holdout/map |" in card


def test_after_a_drift_the_new_ranker_beats_the_champion_by_lists(lab: Any) -> None:
    _, old = trained(lab, offers(cheap=-2.0), "run-1")
    with lab.registry as registry:
        registry.set_alias(lab.name, names.ALIAS_CHAMPION, old.outputs["model_version"])
    version, new = trained(lab, offers(seed=1), "run-2")
    outcome = judged(lab, "run-2", version, new.outputs["model_version"])
    assert outcome.verdict is Verdict.PASS
    assert 0.02 < outcome.outputs["gain_low"] < outcome.outputs["gain"] < outcome.outputs["gain_high"]
    whole = json.loads(artifact(lab, "2", "evaluation/evaluation.json"))
    assert whole["bootstrap"]["lists"] <= 14 * 6 < whole["bootstrap"]["rows"]
    assert set(whole["figures"]["champion"]) == {"ndcg", "map"}
    assert {each["value"] for each in whole["gates"][3]["slices"]} == {"north", "south"}
    assert artifact(lab, "2", "evaluation/ranking.png").startswith(b"\x89PNG")


def test_a_ranker_that_is_no_better_is_rejected(lab: Any) -> None:
    version, old = trained(lab, offers(), "run-1")
    with lab.registry as registry:
        registry.set_alias(lab.name, names.ALIAS_CHAMPION, old.outputs["model_version"])
    _, new = trained(lab, offers(), "run-2")
    gates = ("{against: champion, min_gain: 0.001}",)
    outcome = judged(lab, "run-2", version, new.outputs["model_version"], gates=gates)
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure is not None
    assert outcome.failure.startswith("gain in ndcg against champion is 0.0000")


def fitted(lab: Any, table: pa.Table, params: str, metric: str) -> Fitted:
    """Fitted without MLflow."""
    gates = (f"{{metric: {metric}, min: 0.1}}",)
    pipeline = lab.pipeline(FEATURES, **{**SETTINGS, "params": params, "metric": metric, "gates": gates})
    spec = pipeline.spec
    dataset = assemble(table, spec.data, spec.model.kind, spec.model.group)
    parts = divide(dataset, spec.model.split, spec.model.kind)
    made = prepare(dataset, parts, load_features(pipeline.features_file, "features"))
    return fit(Material(made.encoded.matrix, dataset.label, made.schema, parts, metric, 1, dataset.group), spec.model)


@pytest.mark.parametrize("objective", ["rank:ndcg", "rank:pairwise"])
@pytest.mark.parametrize("metric", ["ndcg", "map"])
def test_every_metric_is_reached_on_graded_labels(offline_lab: Any, objective: str, metric: str) -> None:
    found = fitted(offline_lab, offers(lists=300), f"{{objective: '{objective}'}}", metric)
    assert 0.6 < found.validation <= 1
    assert found.params["objective"] == objective


def test_average_precision_is_learned_from_labels_of_two_grades_and_refused_on_more(offline_lab: Any) -> None:
    table, params = offers(lists=300), "{objective: 'rank:map'}"
    clicks = table.set_column(8, "late", pa.array([grade > 1 for grade in table.column("late").to_pylist()]))
    assert fitted(offline_lab, clicks, params, "map").validation > 0.6
    with pytest.raises(SpecError, match=r"XGBoost refuses model\.params: .* binary labels"):
        fitted(offline_lab, table, params, "map")


def test_a_search_ranks_its_trials_by_the_metric_of_lists(lab: Any) -> None:
    _, outcome = trained(lab, offers(lists=300), "run-1", model="  group: query\n  tuning: {trials: 2, timeout: 2m}")
    assert outcome.metrics["validation/ndcg"] > 0.6
    trials = json.loads(artifact(lab, "1", "trials.json"))
    assert all(0 < trial["ndcg"] <= 1 for trial in trials)


def test_the_processes_return_results_within_the_contract(lab: Any) -> None:
    version = lab.land(offers())
    lab.pipeline(FEATURES, **SETTINGS)
    code, result, log = lab.room.process(lab.request("train", "run-1", version))
    assert code == 0, log
    model = result.outputs["model_version"]
    code, result, log = lab.room.process(lab.request("evaluate", "run-1", version, model_version=model))
    assert code == 0, log
    assert result.verdict is Verdict.PASS
