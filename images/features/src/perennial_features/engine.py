"""What answers: XGBoost, imported in a fifth of the time, or anything else that predicts as it does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np


class Predictor(Protocol):
    """Trees that answer: `xgboost.Booster`, or a faster reading of the same file."""

    def inplace_predict(self, data: Any) -> np.ndarray[Any, Any]:
        """float32[rows] from float32[rows, features], thread-safe."""
        ...


@runtime_checkable
class Saveable(Protocol):
    """A model that can be written to a file."""

    def save_model(self, fname: str | Path) -> None:
        """Write `fname`; the ending says in which format."""
        ...


def load_xgboost() -> Any:
    """The `xgboost` module without its optional scikit-learn part.

    XGBoost imports scikit-learn, and with it pandas and scipy.stats, wherever it is installed: 2.6 s of CPU instead of 0.5 s
    (XGBoost 3.2). Its own fallback for machines without scikit-learn is used instead, by hiding scikit-learn for the length of the import.
    Whoever has imported either of the two before keeps what they have.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when OpenMP is loaded: idle threads must not spin
    if "xgboost" in sys.modules or "sklearn" in sys.modules:
        import xgboost

        return xgboost
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # what Python itself documents for "no such module"
    try:
        import xgboost
    finally:
        del sys.modules["sklearn"]
    return xgboost


def load_booster(file: str, threads: int) -> Any:
    """A saved booster that predicts with `threads` threads."""
    return load_xgboost().Booster({"nthread": threads}, model_file=file)


def contributions(booster: Any, matrix: Any) -> np.ndarray[Any, Any]:
    """TreeSHAP of an XGBoost booster, in the unit of the margin.

    Args:
        matrix: float32[rows, features], as the model sees them. Infinite values are an error of XGBoost.

    Returns:
        float32[rows, features + 1], the bias last; of a model with several outputs float32[rows, outputs, features + 1].
    """
    data = load_xgboost().DMatrix(
        matrix,
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
        nthread=1,
    )
    found: np.ndarray[Any, Any] = booster.predict(data, pred_contribs=True)
    return found
