"""A downloaded folder of an MLflow model, of any flavour, as something that the server can start.

Only the file MLmodel is read here: flavours and signature, in YAML. The model itself is loaded by a process of its own: see
`model_process`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perennial_serving.model_process import ProcessModel, ProcessSettings
from perennial_serving.signature import read_signature
from perennial_spec.errors import ModelError

MLMODEL = "MLmodel"
_FLAVOUR = "python_function"


def is_mlflow_model(folder: Path) -> bool:
    """Whether a downloaded folder is what MLflow's `log_model` writes."""
    return (folder / MLMODEL).is_file()


def load_pyfunc(folder: Path, settings: ProcessSettings) -> ProcessModel:
    """The model in `folder`, not started.

    Raises:
        ModelError: it has no signature, no python_function flavour, or takes what cannot be sent row by row.
    """
    file = folder / MLMODEL
    described = _read(file)
    flavours = described.get("flavors")
    if not isinstance(flavours, dict) or _FLAVOUR not in flavours:
        raise ModelError(
            f"the model has no {_FLAVOUR} flavour",
            where=file.name,
            expected="a model that mlflow.pyfunc can load",
            next="log it with the log_model of its flavour, or wrap it with mlflow.pyfunc.log_model",
        )
    return ProcessModel(folder, read_signature(described.get("signature"), file.name), settings)


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"the model's description cannot be read: {type(error).__name__}", where=file.name) from None
    if not isinstance(found, dict):
        raise ModelError("the model's description is no mapping", where=file.name, expected="what MLflow writes")
    return found
