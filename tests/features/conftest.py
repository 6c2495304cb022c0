"""What the tests of features, schema, bins and bundles share: a pipeline's feature code, data of a known truth, a fitted model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial_features.bundle import Bundle, Smoke, smoke_of
from perennial_features.code import FeatureCode, load_features
from perennial_features.encode import Encoded, encode_all
from perennial_features.engine import load_xgboost
from perennial_features.reference import Reference
from perennial_features.schema import FeatureSchema, infer

FEATURES = """\
import numpy as np


def features(columns):
    hour = (columns["at"] - columns["at"].astype("datetime64[D]")) / np.timedelta64(1, "h")
    return {
        "warm": columns["temperature"] * 1.8 + 32,
        "seats": columns["seats"],
        "is_jet": columns["jet"],
        "city": columns["city"],
        "hour": hour,
    }
"""


@dataclass(frozen=True)
class World:
    """Data, and a model of it."""

    columns: dict[str, np.ndarray[Any, Any]]
    label: np.ndarray[Any, Any]
    code: FeatureCode
    schema: FeatureSchema
    encoded: Encoded
    bundle: Bundle
    extra: dict[str, Any] = field(default_factory=dict)


def make_columns(rows: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Typed columns; `temperature` and `city` have missing values, `unused` is read by nothing."""
    generator = np.random.default_rng(seed)
    temperature = generator.normal(10, 8, rows)
    temperature[::11] = np.nan
    city = np.array(["Oslo", "Rome", "Lima", None], dtype=object)[generator.choice(4, rows, p=[0.5, 0.3, 0.15, 0.05])]
    return {
        "temperature": temperature,
        "seats": generator.integers(50, 300, rows),
        "jet": generator.random(rows) < 0.5,
        "city": city,
        "at": np.datetime64("2013-01-01", "us") + generator.integers(0, 86400 * 50, rows).astype("timedelta64[s]"),
        "unused": generator.normal(size=rows),
    }


def make_label(columns: dict[str, np.ndarray[Any, Any]], seed: int = 0) -> np.ndarray[Any, Any]:
    logit = np.nan_to_num(columns["temperature"]) / 8 - 1 + 1.5 * (columns["city"] == "Oslo")
    label: np.ndarray[Any, Any] = (np.random.default_rng(seed).random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(
        float
    )
    return label


@pytest.fixture
def write_features(tmp_path: Path) -> Callable[[str], FeatureCode]:
    """Feature code from the text of a file."""

    def write(text: str) -> FeatureCode:
        file = tmp_path / "features.py"
        file.write_text(text)
        return load_features(file, "features")

    return write


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    file = tmp_path_factory.mktemp("pipeline") / "features.py"
    file.write_text(FEATURES)
    code = load_features(file, "features")
    columns = make_columns(4000)
    label = make_label(columns)
    features, used = code.trace(columns)
    inputs = {name: columns[name] for name in used}
    schema = infer(inputs, features)
    encoded = encode_all(features, schema)
    xgboost = load_xgboost()
    data = xgboost.QuantileDMatrix(encoded.matrix, label, feature_types=schema.feature_types)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, data, 20)
    predictions = booster.inplace_predict(encoded.matrix)
    reference = Reference.of(encoded, schema, predictions)
    bundle = Bundle("xgboost.classifier", schema, reference, code, booster, {"name": "demo"}, {"run_key": "run-1"})
    smoke = smoke_of(inputs)
    answers = bundle.predict(bundle.columns(smoke)).tolist()
    bundle = Bundle(bundle.kind, schema, reference, code, booster, bundle.spec, bundle.meta, Smoke(smoke, answers))
    return World(columns, label, code, schema, encoded, bundle)
