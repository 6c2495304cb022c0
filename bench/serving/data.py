"""What all servers are measured with: one model, one set of rows, and the rows as requests in every form that is spoken.

300 trees of depth 6 over 23 numeric features. Ours gets the 23 input columns and computes three of the features itself; every other
server gets the features, and has that work done for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perennial_features.bundle import Bundle, Smoke, smoke_of
from perennial_features.code import load_features
from perennial_features.encode import encode_all
from perennial_features.engine import load_xgboost
from perennial_features.reference import Reference
from perennial_features.schema import infer
from perennial_spec.pipeline import PipelineSpec

PIPELINE = "bench"
COLUMNS = tuple(f"feature_{n:02}" for n in range(23))
TREES, DEPTH = 300, 6
TRAINING_ROWS = 20_000
SINGLES, HUNDREDS = 512, 64
"""Different bodies of one row, and of 100 rows: the load rotates over them, because one row repeated flatters code that branches."""
HUNDRED = 100
SOURCE = """
import numpy as np

def features(columns):
    computed = {
        "feature_00": np.log1p(columns["feature_00"]),
        "feature_01": columns["feature_01"] / columns["feature_02"],
        "feature_03": columns["feature_03"] % 24,
    }
    return {name: computed.get(name, columns[name]) for name in columns}
"""
Columns = dict[str, np.ndarray[Any, Any]]


def spec() -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "apiVersion": "perennial/v1",
            "name": PIPELINE,
            "owner": {"team": "bench", "contact": "bench@example.com"},
            "data": {
                "sources": {"rows": "rows.parquet"},
                "timestamp": "seen",
                "entity": "row",
                "label": {"column": "label"},
            },
            "model": {"kind": "xgboost.classifier"},
            "evaluation": {"metric": "roc_auc", "gates": [{"metric": "roc_auc", "min": 0.6}]},
        }
    )


def columns_of(rows: int, seed: int) -> Columns:
    """Input columns as clients have them: three decimals, and every fourth a whole number."""
    rng = np.random.default_rng(seed)
    found: Columns = {}
    for place, name in enumerate(COLUMNS):
        if place % 4 == 3:
            found[name] = rng.integers(0, 1000, rows)
        else:
            found[name] = np.round(rng.gamma(2.0, 30.0, rows) + 0.5, 3)
    return found


@dataclass(frozen=True)
class Trained:
    """A bundle, and what its model answers to any rows."""

    bundle: Bundle

    def features(self, columns: Columns) -> Columns:
        """The features, to 6 digits: what a client of a server without feature code would send."""
        made = self.bundle.code.apply(columns)
        return {name: np.round(made[name], 6) for name in COLUMNS}

    def scores(self, columns: Columns) -> list[float]:
        """XGBoost's answers to input columns."""
        return [float(score) for score in self.bundle.predict(columns)]

    def scores_of_features(self, features: Columns) -> list[float]:
        """XGBoost's answers to features as they were sent."""
        matrix = np.column_stack([features[name] for name in COLUMNS]).astype(np.float32)
        return [float(score) for score in self.bundle.predict_encoded(matrix)]


def train(folder: Path, seed: int = 0) -> Trained:
    """Train and save a bundle in `folder`/bundle, and the bare model beside it for the others, with and without names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.py").write_text(SOURCE)
    code = load_features(folder / "features.py", "features")
    columns = columns_of(TRAINING_ROWS, seed)
    features, read = code.trace(columns)
    schema = infer({name: columns[name] for name in read}, features)
    encoded = encode_all(features, schema)
    xgboost = load_xgboost()
    data = xgboost.DMatrix(encoded.matrix, _labels(columns, seed), feature_names=schema.feature_names)
    settings = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.1, "nthread": 2, "seed": seed}
    booster = xgboost.train(settings, data, TREES)
    booster.set_param({"nthread": 1})
    bundle = Bundle(
        kind="xgboost.classifier",
        schema=schema,
        reference=Reference.of(encoded, schema, booster.inplace_predict(encoded.matrix)),
        code=code,
        booster=booster,
        spec=spec().model_dump(mode="json"),
    )
    asked = smoke_of(columns)
    bundle = replace(bundle, smoke=Smoke(asked, bundle.predict(bundle.columns(asked)).tolist()))
    bundle.save(folder / "bundle")
    booster.save_model(folder / "named.ubj")
    bare = booster.copy()
    bare.feature_names = None
    bare.save_model(folder / "bare.json")
    return Trained(bundle)


def _labels(columns: Columns, seed: int) -> np.ndarray[Any, Any]:
    """float[rows]: depends on many columns, with noise, so that all trees grow to their depth."""
    rng = np.random.default_rng(seed + 1000)
    weights = rng.normal(0, 1, len(COLUMNS))
    scaled = [(columns[name] - columns[name].mean()) / columns[name].std() for name in COLUMNS]
    signal = (
        sum(w * column for w, column in zip(weights, scaled, strict=True))
        + scaled[0] * scaled[7]
        + scaled[3] * scaled[11]
    )
    found: np.ndarray[Any, Any] = (signal + rng.normal(0, 2, TRAINING_ROWS) > 0).astype(float)
    return found


# -- forms: what a server reads, and where its answers are --


@dataclass(frozen=True)
class Form:
    """A way to write rows as JSON, and to read scores."""

    write: Callable[[list[list[Any]]], Any]
    read: Callable[[Any], Sequence[Any]]
    raw: bool = False
    """It takes input columns, not features."""


def _split(rows: list[list[Any]]) -> Any:
    return {"dataframe_split": {"columns": list(COLUMNS), "data": rows}}


def _tensor(rows: list[list[Any]]) -> Any:
    flat = [value for row in rows for value in row]
    return {"inputs": [{"name": "rows", "shape": [len(rows), len(COLUMNS)], "datatype": "FP32", "data": flat}]}


def _predictions(answer: Any) -> Sequence[Any]:
    found: Sequence[Any] = answer["predictions"]
    return found


FORMS: Mapping[str, Form] = {
    "ours": Form(_split, _predictions, raw=True),
    "split": Form(_split, _predictions),
    "bentoml": Form(lambda rows: {"rows": rows}, lambda answer: answer),
    "v1": Form(lambda rows: {"instances": rows}, _predictions),
    "v2": Form(_tensor, lambda answer: answer["outputs"][0]["data"]),
}


@dataclass(frozen=True)
class Batch:
    """Rows that are sent as one body, in both ways, with XGBoost's answers to each."""

    columns: list[list[Any]]
    features: list[list[Any]]
    expected_columns: list[float]
    expected_features: list[float]

    def body(self, form: Form) -> bytes:
        return json.dumps(form.write(self.columns if form.raw else self.features), separators=(",", ":")).encode()

    def expected(self, form: Form) -> list[float]:
        return self.expected_columns if form.raw else self.expected_features


def batches(trained: Trained, size: int, count: int, seed: int) -> list[Batch]:
    """`count` different bodies of `size` rows."""
    columns = columns_of(size * count, seed)
    features = trained.features(columns)
    parts: tuple[list[Any], ...] = (
        _rows(columns),
        _rows(features),
        trained.scores(columns),
        trained.scores_of_features(features),
    )
    found = []
    for start in range(0, size * count, size):
        sent, made, by_columns, by_features = (part[start : start + size] for part in parts)
        found.append(Batch(sent, made, by_columns, by_features))
    return found


def _rows(columns: Columns) -> list[Any]:
    return [list(row) for row in zip(*(columns[name].tolist() for name in COLUMNS), strict=True)]
