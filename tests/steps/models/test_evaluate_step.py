"""The evaluation step against a real registry: who may take over, why not, and once per run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from perennial_spec import names
from perennial_spec.errors import BatchError, ModelError
from perennial_spec.step import Verdict
from perennial_steps import evaluate, train
from perennial_steps.runner import run_to_the_end


def trained(lab: Any, table: pa.Table, key: str, pipeline: Any = None) -> tuple[int, str]:
    """Data version and model version."""
    version = lab.land(table)
    outcome = train.run(lab.context("train", key, version, pipeline or lab.pipeline()))
    return version, outcome.outputs["model_version"]


def judged(lab: Any, key: str, version: int, model_version: str, **settings: Any) -> Any:
    return evaluate.run(lab.context("evaluate", key, version, lab.pipeline(**settings), model_version=model_version))


def make_champion(lab: Any, version: str) -> None:
    with lab.registry as registry:
        registry.set_alias(lab.name, names.ALIAS_CHAMPION, version)


def tags(lab: Any, version: str) -> dict[str, str]:
    with lab.registry as registry:
        return dict(registry.get(lab.name, version).tags)


def aliased(lab: Any, alias: str) -> str | None:
    with lab.registry as registry:
        found = registry.by_alias(lab.name, alias)
        return found.version if found else None


def artifact(lab: Any, version: str, path: str) -> bytes:
    with lab.registry as registry:
        root = registry.get(lab.name, version).source.removesuffix("/model").removeprefix("mlflow-artifacts:/")
    answer = httpx.get(f"{lab.room.platform.mlflow_url}/api/2.0/mlflow-artifacts/artifacts/{root}/{path}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_the_first_model_passes_without_a_champion_and_becomes_challenger(lab: Any, trips: pa.Table) -> None:
    version, model = trained(lab, trips, "run-1")
    outcome = judged(lab, "run-1", version, model)
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["champion_version"] is None
    assert [gate["passed"] for gate in outcome.outputs["gates"]] == [True, True, True]
    assert outcome.outputs["gates"][1]["note"] == "there is no champion yet"
    assert aliased(lab, names.ALIAS_CHALLENGER) == model
    assert tags(lab, model)[names.TAG_VERDICT] == "passed"
    assert json.loads(tags(lab, model)[names.TAG_GATES]) == outcome.outputs["gates"]


def test_after_a_drift_the_new_model_beats_the_champion_on_the_same_holdout(
    lab: Any, trips: pa.Table, trips_of: Any
) -> None:
    _, old = trained(lab, trips, "run-1")
    make_champion(lab, old)
    version, new = trained(lab, trips_of(seed=1, slope=-2.0), "run-2")  # rain now does the opposite
    outcome = judged(lab, "run-2", version, new)
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["champion_version"] == old
    assert outcome.outputs["gain_low"] > 0.2
    assert outcome.outputs["gain_low"] < outcome.outputs["gain"] < outcome.outputs["gain_high"]
    assert outcome.summary.startswith(f"version {new} against champion {old}: roc_auc 0.8")
    assert "at 95%" in outcome.summary
    assert aliased(lab, names.ALIAS_CHALLENGER) == new
    assert aliased(lab, names.ALIAS_CHAMPION) == old  # evaluation promotes nothing

    whole = json.loads(artifact(lab, new, "evaluation/evaluation.json"))
    assert whole["figures"]["champion"]["roc_auc"] < 0.5
    assert whole["bootstrap"]["resamples"] == 1000
    assert {each["value"] for each in whole["gates"][2]["slices"]} == {"x", "y"}  # a sensitive column, audited
    assert artifact(lab, new, "evaluation/roc.png").startswith(b"\x89PNG")


def test_a_model_that_is_no_better_is_rejected_with_gate_figure_and_bound(lab: Any, trips: pa.Table) -> None:
    version, old = trained(lab, trips, "run-1")
    make_champion(lab, old)
    version, new = trained(lab, trips, "run-2")
    gates = ("{against: champion, min_gain: 0.002}",)
    outcome = judged(lab, "run-2", version, new, gates=gates)
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure == (
        "gain in roc_auc against champion is 0.0000 (measured +0.0000, interval +0.0000 to +0.0000), "
        "expected >= 0.002 at 95%"
    )
    assert aliased(lab, names.ALIAS_CHALLENGER) is None
    assert tags(lab, new)[names.TAG_VERDICT] == "rejected"
    assert tags(lab, old)[names.TAG_VERDICT] == "registered"


def test_a_metric_that_is_too_low_is_rejected(lab: Any, trips: pa.Table) -> None:
    version, model = trained(lab, trips, "run-1")
    outcome = judged(lab, "run-1", version, model, gates=("{metric: roc_auc, min: 0.99}",))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure is not None
    assert outcome.failure.startswith("roc_auc is 0.8")
    assert outcome.failure.endswith("expected >= 0.99")


def test_a_step_run_twice_judges_once_even_after_the_promotion(lab: Any, trips: pa.Table) -> None:
    version, model = trained(lab, trips, "run-1")
    first = judged(lab, "run-1", version, model)
    make_champion(lab, model)
    with lab.registry as registry:
        registry.delete_alias(lab.name, names.ALIAS_CHALLENGER)
        registry.tag(lab.name, model, names.TAG_VERDICT, "promoted")
    again = judged(lab, "run-1", version, model)
    assert again == first
    assert aliased(lab, names.ALIAS_CHALLENGER) is None
    # Another run may judge it anew; a promoted version stays promoted.
    judged(lab, "run-9", version, model)
    assert tags(lab, model)[names.TAG_VERDICT] == "promoted"
    assert aliased(lab, names.ALIAS_CHALLENGER) is None


def deployment(lab: Any, version: int, model_version: str, judged_against: str, **settings: Any) -> Any:
    """The request of the step deploy in run-2, which evaluated `model_version`."""
    request = lab.context("deploy", "run-2", version, lab.pipeline(**settings), model_version=model_version).request
    inputs = request.inputs | {"evaluate": {"champion_version": judged_against}}
    return request.model_copy(update={"inputs": inputs, "params": {"share": 0.1, "wait": False}})


def test_in_the_same_run_it_is_judged_again_when_the_champion_has_changed(
    lab: Any, trips: pa.Table, trips_of: Any
) -> None:
    gates = ("{against: champion, min_gain: 0.002}",)
    _, old = trained(lab, trips, "run-1")
    make_champion(lab, old)
    version, new = trained(lab, trips_of(seed=1, slope=-2.0), "run-2")
    assert judged(lab, "run-2", version, new, gates=gates).verdict is Verdict.PASS
    assert tags(lab, new)[names.TAG_JUDGED_AGAINST] == old
    as_good = train.run(lab.context("train", "run-3", version, lab.pipeline(gates=gates))).outputs["model_version"]
    make_champion(lab, as_good)
    wanted = deployment(lab, version, new, old, gates=gates)
    result = run_to_the_end(wanted, lab.room.platform)
    assert (result.step, result.verdict) == ("evaluate", Verdict.FAIL)
    assert result.outputs["champion_version"] == as_good
    found = tags(lab, new)
    assert (found[names.TAG_JUDGED_AGAINST], found[names.TAG_VERDICT]) == (as_good, "rejected")
    assert json.loads(found[names.TAG_GATES]) == result.outputs["gates"]
    make_champion(lab, old)
    result = run_to_the_end(wanted, lab.room.platform)
    assert (result.step, result.verdict) == ("deploy", Verdict.FAIL), "what was rejected is not judged until it passes"


def test_in_the_same_run_it_goes_on_when_it_beats_the_new_champion_too(
    lab: Any, trips: pa.Table, trips_of: Any
) -> None:
    _, old = trained(lab, trips, "run-1")
    _, other = trained(lab, trips, "run-0")
    make_champion(lab, old)
    version, new = trained(lab, trips_of(seed=1, slope=-2.0), "run-2")
    assert judged(lab, "run-2", version, new).verdict is Verdict.PASS
    make_champion(lab, other)
    result = run_to_the_end(deployment(lab, version, new, old), lab.room.platform)
    assert (result.step, result.verdict) == ("deploy", Verdict.PASS)
    assert tags(lab, new)[names.TAG_JUDGED_AGAINST] == other
    with lab.registry as registry:
        assert registry.route(lab.name).weights == {other: 0.9, new: 0.1}
        registry.tag(lab.name, new, names.TAG_JUDGED_AGAINST, old)  # a later judgement that was killed before its end
    assert run_to_the_end(deployment(lab, version, new, old), lab.room.platform).verdict is Verdict.PASS
    assert tags(lab, new)[names.TAG_JUDGED_AGAINST] == other


def test_killed_before_the_end_the_next_attempt_finishes(
    lab: Any, trips: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    version, model = trained(lab, trips, "run-1")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate.Registry, "set_alias", killed)
        with pytest.raises(Killed):
            judged(lab, "run-1", version, model)
    assert aliased(lab, names.ALIAS_CHALLENGER) is None
    assert judged(lab, "run-1", version, model).verdict is Verdict.PASS
    assert aliased(lab, names.ALIAS_CHALLENGER) == model


def test_a_champion_that_needs_a_column_which_is_gone_is_a_clear_error(lab: Any, trips: pa.Table) -> None:
    _, old = trained(lab, trips, "run-1")
    make_champion(lab, old)
    features = "def features(columns):\n    return {'rain': columns['rain']}\n"
    version, new = trained(lab, trips.drop(["load"]), "run-2", lab.pipeline(features))
    with pytest.raises(
        ModelError, match=rf"the champion, version {old}, cannot be compared with: column 'load' is missing"
    ):
        judged(lab, "run-2", version, new, features=features)
    # Without a gate that asks for the comparison, the challenger is judged by the others.
    outcome = judged(lab, "run-2", version, new, features=features, gates=("{metric: roc_auc, min: 0.6}",))
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["gain"] is None


def test_a_champion_trained_without_missing_values_still_answers_a_holdout_that_has_some(
    lab: Any, trips: pa.Table, trips_of: Any
) -> None:
    _, old = trained(lab, trips, "run-1")
    make_champion(lab, old)
    later = trips_of(seed=1, slope=-2.0)
    load = later.column("load").to_pylist()
    load[-50:] = [None] * 50
    version, new = trained(lab, later.set_column(3, "load", pa.array(load, pa.int32())), "run-2")
    assert judged(lab, "run-2", version, new).outputs["champion_version"] == old


def test_a_slice_column_that_is_not_there_is_named(lab: Any, trips: pa.Table) -> None:
    version, model = trained(lab, trips, "run-1")
    with pytest.raises(BatchError, match="no column 'grop'; did you mean 'group'"):
        judged(lab, "run-1", version, model, gates=("{slice: grop, metric: roc_auc, min: 0.5}",))


def test_a_regressor_is_compared_by_its_loss(lab: Any, trips: pa.Table, tmp_path: Path) -> None:
    settings = {"kind": "xgboost.regressor", "metric": "rmse"}
    settings["gates"] = ("{metric: rmse, max: 1.0}", "{against: champion, min_gain: 0.0}")  # type: ignore[assignment]
    numbers = trips.set_column(7, "late", trips.column("rain").fill_null(0))
    opposite = trips.set_column(7, "late", pa.array([-value for value in numbers.column("late").to_pylist()]))
    _, old = trained(lab, opposite, "run-1", lab.pipeline(**settings))
    make_champion(lab, old)
    version, new = trained(lab, numbers, "run-2", lab.pipeline(**settings))
    outcome = judged(lab, "run-2", version, new, **settings)
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["gain_low"] > 0.5
    assert artifact(lab, new, "evaluation/fit.png").startswith(b"\x89PNG")


def test_the_process_returns_a_result_within_the_contract(lab: Any, trips: pa.Table) -> None:
    gates = tuple(
        f"{{metric: {metric}, min: 0.0}}" for metric in ("roc_auc", "average_precision", "log_loss", "brier") * 8
    )
    version, model = trained(lab, trips, "run-1", lab.pipeline(gates=gates))
    code, result, log = lab.room.process(lab.request("evaluate", "run-1", version, model_version=model))
    assert code == 0, log
    assert result.verdict is Verdict.PASS
    assert len(result.to_message().encode()) <= 4096
