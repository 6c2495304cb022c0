"""MLflow's view of a bundle: `mlflow models serve` and `mlflow.pyfunc.load_model` answer on the raw input columns.

A loader module instead of a pickled or scripted model: MLflow stores the bundle's folder as it is, so there is one copy of the model, and
this module needs nothing of MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perennial_features.bundle import Bundle, Scores

LOADER_MODULE = __name__


class PyfuncBundle:
    """What MLflow calls."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Scores:
        """float64[rows] for a pandas frame, a mapping of lists or a list of records."""
        data = model_input
        if hasattr(model_input, "columns"):
            data = {str(name): model_input[name].to_numpy() for name in model_input.columns}
        return self.bundle.predict(self.bundle.columns(data))


def _load_pyfunc(path: str) -> PyfuncBundle:
    """MLflow's entry point."""
    return PyfuncBundle(Bundle.load(Path(path)))
