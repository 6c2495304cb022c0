"""The model in the forms that the peers load: an MLflow model, an ONNX graph, a folder for MLServer. `prepare.py MODEL`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def mlflow_model(model: Path) -> None:
    """Without a signature: checking one costs time for every request, and this leaves it out."""
    import mlflow.xgboost
    import xgboost

    booster = xgboost.Booster(model_file=model / "named.ubj")
    mlflow.xgboost.save_model(booster, str(model / "mlflow"), pip_requirements=[])


def onnx_graph(model: Path) -> None:
    import onnxmltools  # type: ignore[import-not-found]
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType  # type: ignore[import-not-found]

    classifier = xgboost.XGBClassifier()
    classifier.load_model(model / "bare.json")
    booster = classifier.get_booster()
    kinds = [("rows", FloatTensorType([None, booster.num_features()]))]
    graph = onnxmltools.convert_xgboost(booster, initial_types=kinds, target_opset=15)
    (model / "model.onnx").write_bytes(graph.SerializeToString())


def mlserver_folder(model: Path) -> None:
    folder = model / "mlserver"
    folder.mkdir()
    settings = {
        "name": "bench",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": str(model / "bare.json")},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for make in (mlflow_model, onnx_graph, mlserver_folder):
        make(folder)
