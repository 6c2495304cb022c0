"""Models that XGBoost really trained, and rows that it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from perennial_native.forest import Flat, Forest, flatten

ROWS, NUMERIC, CATEGORIES = 400, 5, 40
TYPES = ["q"] * NUMERIC + ["c"]


def rows(seed: int, count: int = ROWS) -> Any:
    """float32[count, 6]: five numbers, a category, and a tenth of them missing."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, NUMERIC + 1)).astype(np.float32)
    matrix[:, NUMERIC] = rng.integers(0, CATEGORIES, count)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return matrix


def strange(seed: int, count: int = ROWS) -> Any:
    """As `rows`, with infinities, and categories that are unseen, negative, fractions, or no categories at all."""
    rng = np.random.default_rng(seed)
    matrix = rows(seed, count)
    for value in (np.inf, -np.inf, 0.0, -0.0, np.float32(3e38), np.float32(1e-42)):
        matrix[rng.random(matrix.shape) < 0.02] = value
    odd = np.array(
        [-1, -0.5, 0.5, 7.99, 31, 32, 39, 40, 41, 63, 64, 255, 256, 16777215, 16777216, 3e9, -3e9], dtype=np.float32
    )
    chosen = rng.random(count) < 0.3
    matrix[chosen, NUMERIC] = rng.choice(odd, chosen.sum())
    return matrix


class Teacher:
    """Labels of every kind for the same 400 rows, and boosters trained on them."""

    def __init__(self) -> None:
        self.matrix = rows(0)
        rng = np.random.default_rng(1)
        plain = np.nan_to_num(self.matrix)
        score = (
            plain[:, 0] + np.where(plain[:, 1] > 0, plain[:, 2], plain[:, NUMERIC] % 3) + rng.normal(size=ROWS) * 0.3
        )
        self.labels: Mapping[str, Any] = {
            "any": score,
            "positive": np.abs(score) + 0.1,
            "count": np.round(np.abs(score)),
            "binary": (score > score.mean()).astype(int),
            "class": np.digitize(score, np.quantile(score, [0.25, 0.5, 0.75])),
            "many": np.stack([score, -score, np.abs(score)], axis=1),
            "both": np.stack([score > 0, score < 1], axis=1).astype(int),
        }

    def train(self, label: str = "any", rounds: int = 7, numeric: bool = False, **params: Any) -> Any:
        """A booster; `numeric` leaves the category to be a number."""
        types = None if numeric else TYPES
        data = xgb.DMatrix(self.matrix, feature_types=types, enable_categorical=not numeric)
        values = self.labels[label]
        if params.get("objective") == "survival:aft":
            data.set_float_info("label_lower_bound", values)
            data.set_float_info("label_upper_bound", values * 1.5)
        else:
            data.set_label(values)
        if params.get("objective", "").startswith("rank:"):
            data.set_group([20] * (ROWS // 20))
        return xgb.train({"nthread": 1, "seed": 3, **params}, data, rounds)


@pytest.fixture(scope="session")
def teacher() -> Teacher:
    return Teacher()


def flattened(booster: Any) -> Flat:
    return flatten(json.loads(booster.save_raw("json")))


@pytest.fixture(scope="session")
def forest_of() -> Any:
    """The forest of a booster."""
    return lambda booster: Forest(flattened(booster))


@pytest.fixture(scope="session")
def flat_of() -> Any:
    """The flat forest of a booster."""
    return flattened


@pytest.fixture(scope="session")
def rows_of() -> Any:
    """`strange` rows of a seed."""
    return strange
