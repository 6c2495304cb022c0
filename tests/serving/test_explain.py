"""Explanations are XGBoost's own, add up to the model's margin, and cost nothing while nobody asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from perennial_features.bundle import Bundle
from perennial_features.engine import load_xgboost
from perennial_serving.child import TooSlow
from perennial_serving.explain import Explained, Explainer
from perennial_serving.explain_worker import space_of
from perennial_serving.refusals import NotReady, TooLarge
from perennial_spec.errors import ModelError, RequestError


@dataclass(frozen=True)
class Limits:
    explain_idle_seconds: float = 60.0
    explain_timeout_seconds: float = 30.0
    max_explain_rows: int = 1000


@asynccontextmanager
async def explainer(**limits: Any):
    made = Explainer(Limits(**limits))
    yield made
    await made.close()


def matrix_of(bundle: Bundle, row: dict[str, Any], rows: int) -> Any:
    """Rows with missing values and a category that training did not see."""
    carriers = ["UA", "B6", None, "never seen"]
    sent = [{**row, "distance": 100.0 * n if n % 5 else None, "carrier": carriers[n % 4]} for n in range(rows)]
    return bundle.encode(bundle.columns(sent)).matrix


async def until(condition: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def margin_of_booster(booster: Any, matrix: Any) -> Any:
    return booster.inplace_predict(matrix, predict_type="margin")


def margin_of(bundle: Bundle, matrix: Any) -> Any:
    return margin_of_booster(bundle.booster, matrix)


async def test_base_and_contributions_add_up_to_the_margin(bundles: Any, row: Any) -> None:
    bundle = Bundle.load(bundles["one"])
    matrix = matrix_of(bundle, row, 50)
    async with explainer() as explain:
        found = await explain.explain(bundles["one"], matrix)
    assert found.space == "log-odds"
    assert found.base.shape == (50,)
    assert found.contributions.shape == (50, len(bundle.schema.features))
    margin = found.base + found.contributions.sum(axis=1)
    assert np.allclose(margin, margin_of(bundle, matrix), atol=1e-5)
    assert np.allclose(1 / (1 + np.exp(-margin)), bundle.predict_encoded(matrix), atol=1e-6)
    assert np.abs(found.contributions).max() > 0.01


async def test_the_answer_names_the_features_and_the_unit(bundles: Any, row: Any) -> None:
    bundle = Bundle.load(bundles["one"])
    found = Explained(np.array([0.5]), np.arange(6.0)[None, :], "log-odds")
    answer = json.loads(
        orjson.dumps(found.to_json("flights", "3", bundle.schema.feature_names), option=orjson.OPT_SERIALIZE_NUMPY)
    )
    assert answer == {
        "model_name": "flights",
        "model_version": "3",
        "space": "log-odds",
        "base": [0.5],
        "contributions": [dict(zip(bundle.schema.feature_names, map(float, range(6)), strict=True))],
    }


async def test_models_take_turns_in_one_process(bundles: Any, row: Any) -> None:
    one, two = Bundle.load(bundles["one"]), Bundle.load(bundles["two"])
    matrix = matrix_of(one, row, 3)
    async with explainer() as explain:
        assert not explain.pid
        found = await asyncio.gather(*(explain.explain(bundles[name], matrix) for name in ("one", "two") * 4))
        process = explain.pid or 0
        await explain.explain(bundles["one"], matrix)
        assert explain.pid == process > 0
    for place, answer in enumerate(found):
        booster = (one, two)[place % 2].booster
        margin = answer.base + answer.contributions.sum(axis=1)
        assert np.allclose(margin, margin_of_booster(booster, matrix), atol=1e-5)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def test_an_idle_process_ends_and_the_next_question_starts_another(bundles: Any, row: Any) -> None:
    matrix = matrix_of(Bundle.load(bundles["one"]), row, 1)
    async with explainer(explain_idle_seconds=0.2) as explain:
        await explain.explain(bundles["one"], matrix)
        await until(lambda: explain.pid is None)
        assert len((await explain.explain(bundles["one"], matrix)).base) == 1


async def test_a_process_that_was_killed_is_replaced(bundles: Any, row: Any) -> None:
    matrix = matrix_of(Bundle.load(bundles["one"]), row, 1)
    async with explainer() as explain:
        await explain.explain(bundles["one"], matrix)
        assert explain.pid is not None
        os.kill(explain.pid, signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert len((await explain.explain(bundles["one"], matrix)).base) == 1


async def test_a_client_that_goes_away_leaves_no_answer_for_the_next(bundles: Any, row: Any) -> None:
    bundle = Bundle.load(bundles["one"])
    async with explainer() as explain:
        await explain.explain(bundles["one"], matrix_of(bundle, row, 1))
        gone = asyncio.create_task(explain.explain(bundles["one"], matrix_of(bundle, row, 1000)))
        await asyncio.sleep(0.001)
        gone.cancel()
        assert len((await explain.explain(bundles["one"], matrix_of(bundle, row, 2))).base) == 2


async def test_too_many_rows_are_refused(bundles: Any, row: Any) -> None:
    async with explainer(max_explain_rows=10) as explain:
        with pytest.raises(TooLarge, match="11 rows") as refused:
            await explain.explain(bundles["one"], np.zeros((11, 6), dtype=np.float32))
        assert "at most 10" in refused.value.expected


async def test_an_explanation_that_takes_too_long_is_given_up(bundles: Any) -> None:
    async with explainer(explain_timeout_seconds=0.05) as explain:
        with pytest.raises(TooSlow, match="took too long"):
            await explain.explain(bundles["one"], np.zeros((1, 6), dtype=np.float32))
        assert explain.pid is None


async def test_a_server_that_ends_takes_no_more(bundles: Any) -> None:
    async with explainer() as explain:
        await explain.close()
        with pytest.raises(NotReady, match="the server ends"):
            await explain.explain(bundles["one"], np.zeros((1, 6), dtype=np.float32))


async def test_a_folder_without_a_model_is_an_error_and_the_process_stays(bundles: Any, tmp_path: Path) -> None:
    async with explainer() as explain:
        with pytest.raises(ModelError):
            await explain.explain(tmp_path, np.zeros((1, 6), dtype=np.float32))
        assert len((await explain.explain(bundles["one"], np.zeros((1, 6), dtype=np.float32))).base) == 1


async def test_a_model_with_several_values_per_row_is_refused(tmp_path: Path) -> None:
    xgboost = load_xgboost()
    rng = np.random.default_rng(0)
    data = xgboost.DMatrix(rng.normal(size=(60, 3)).astype(np.float32), rng.integers(0, 3, 60))
    xgboost.train({"objective": "multi:softprob", "num_class": 3}, data, 2).save_model(tmp_path / "model.ubj")
    async with explainer() as explain:
        with pytest.raises(RequestError, match="3 values per row"):
            await explain.explain(tmp_path, np.zeros((1, 3), dtype=np.float32))


@pytest.mark.parametrize(
    ("objective", "space"),
    [
        ("binary:logistic", "log-odds"),
        ("reg:squarederror", "value"),
        ("count:poisson", "log"),
        ("reg:gamma", "log"),
        ("rank:pairwise", "score"),
    ],
)
def test_the_unit_is_that_of_the_objective(objective: str, space: str) -> None:
    xgboost = load_xgboost()
    data = xgboost.DMatrix(np.arange(8, dtype=np.float32)[:, None], np.array([0, 1] * 4) + ("gamma" in objective))
    if objective.startswith("rank"):
        data.set_group([8])
    assert space_of(xgboost.train({"objective": objective}, data, 1)) == space
