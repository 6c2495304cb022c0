"""A BentoML service; the folder of the model is in BENCH_MODEL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml  # type: ignore[import-not-found]
import numpy as np
import xgboost


@bentoml.service(workers=1)
class Trees:
    def __init__(self) -> None:
        self._booster = xgboost.Booster(model_file=Path(os.environ["BENCH_MODEL"]) / "bare.json")
        self._booster.set_param({"nthread": 1})

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray[Any, Any] = self._booster.inplace_predict(rows.astype(np.float32))
        return found
