"""The predictors that the servers written for this benchmark put behind their protocols. Runs in the peers' environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[Any], list[float]]
"""Rows, each a list of numbers, to scores."""


def predictor(name: str, model: Path) -> Predict:
    """One of `inplace`, `onnx`, `forest`; `model` is the folder that was prepared for all."""
    return {"inplace": _inplace, "onnx": _onnx, "forest": _forest}[name](model)


def _inplace(model: Path) -> Predict:
    import xgboost

    booster = xgboost.Booster(model_file=model / "bare.json")
    booster.set_param({"nthread": 1})

    def predict(rows: Any) -> list[float]:
        found: list[float] = booster.inplace_predict(np.array(rows, dtype=np.float32)).tolist()
        return found

    return predict


def _onnx(model: Path) -> Predict:
    import onnxruntime  # type: ignore[import-not-found]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def predict(rows: Any) -> list[float]:
        found = session.run(["probabilities"], {"rows": np.array(rows, dtype=np.float32)})[0]
        scores: list[float] = found[:, 1].tolist()
        return scores

    return predict


def _forest(model: Path) -> Predict:
    from perennial_native.forest import Flat, Forest  # type: ignore[import-not-found, unused-ignore]

    forest = Forest(Flat.load(model / "flat"))

    def predict(rows: Any) -> list[float]:
        found: list[float] = forest.predict(np.array(rows, dtype=np.float32)).tolist()
        return found

    return predict
