"""A bundle as an MLflow model of the pyfunc flavour, with signature and requirements.

Written here, and not by `mlflow.pyfunc.save_model`: the format is one small YAML file, and importing MLflow for it costs 2.2 s of CPU
in every training. A test loads what is written with MLflow itself, from a real server.
"""

from __future__ import annotations

import json
import platform
import uuid
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from perennial_features.schema import FeatureSchema

BUNDLE = "bundle"
"""The bundle's folder within the model."""
_TYPES = {"number": "double", "integer": "long", "boolean": "boolean", "text": "string", "timestamp": "datetime"}
_REQUIRED = ("perennial-features", "numpy", "xgboost-cpu", "pydantic", "pyyaml", "pandas")


def write_mlmodel(folder: Path, schema: FeatureSchema, run_id: str) -> None:
    """Write MLmodel, requirements.txt and python_env.yaml beside the bundle in `folder`."""
    requirements = [f"{name}=={found}" for name in _REQUIRED if (found := _installed(name))]
    python = platform.python_version()
    model = {
        "flavors": {
            "python_function": {
                "data": BUNDLE,
                "env": {"virtualenv": "python_env.yaml"},
                "loader_module": "perennial_features.pyfunc",
                "python_version": python,
            }
        },
        "mlflow_version": _installed("mlflow-skinny") or "3.0.0",
        "model_uuid": uuid.uuid4().hex,
        "run_id": run_id,
        "signature": signature(schema),
        "utc_time_created": str(datetime.now(UTC).replace(tzinfo=None)),
    }
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "MLmodel").write_text(yaml.safe_dump(model))
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment, sort_keys=False))
    (folder / "requirements.txt").write_text("\n".join([*requirements, ""]))


def signature(schema: FeatureSchema) -> dict[str, Any]:
    """MLflow's signature: the input columns by name, and one score per row."""
    inputs = [
        {"type": _TYPES[column.kind], "name": column.name, "required": not column.nullable} for column in schema.inputs
    ]
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
