"""A process that answers for one MLflow model, of whatever flavour; see `model_process` for the server's side.

Two calls: `load`, which loads the model and has it answer its own example, and `predict`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perennial_features.code import Array
from perennial_features.request import columns_from_rows
from perennial_serving.child_loop import Answer, serve
from perennial_serving.frames import Head
from perennial_serving.question import EXAMPLE
from perennial_serving.signature import Signature
from perennial_spec.errors import ModelError, RequestError

_NICE = 5
"""A model that computes for long gives way to the server, which answers for others, where there are not processors for both."""
_RETURN = "one number or text per row, or a table of numbers with one row per row"


class ModelWorker:
    """Holds the model once it is loaded."""

    def __init__(self) -> None:
        self._model: Any = None
        self._signature: Signature | None = None

    def __call__(self, head: Head, columns: dict[str, Array]) -> Answer:
        if "load" in head:
            return self._load(Path(head["load"]), head["signature"])
        return {}, {"predictions": self._predict(columns, int(head["rows"]))}

    def _load(self, folder: Path, told: dict[str, Any]) -> Answer:
        self._signature = Signature.from_json(told)
        self._model = _opened(folder)
        example = _example(self._model, folder)
        if example is None:
            return {"example": 0}, {}
        try:
            columns = self._signature.typed(columns_from_rows(example, self._signature.schema))
        except RequestError as error:
            raise ModelError(f"the model's input example is not of its signature: {error}") from None
        rows = len(next(iter(example.values())))
        found = self._predict(columns, rows)
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise ModelError("the model answers its input example with a number that is not finite")
        first = {f"{EXAMPLE}{name}": values[:1] for name, values in columns.items()}
        return {"example": rows}, {"predictions": found, **first}

    def _predict(self, columns: dict[str, Array], rows: int) -> Array:
        assert self._signature is not None
        return plain(self._model.predict(_given(self._signature, columns)), rows)


def _opened(folder: Path) -> Any:
    try:
        import mlflow.pyfunc
        import pandas  # noqa: F401 (of a model that takes data frames)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"models of MLflow's flavours are not served here: {error.name} is not installed",
            expected="MLflow and pandas beside the server",
            next="pip install 'perennial-serving[pyfunc]'",
        ) from None
    return mlflow.pyfunc.load_model(str(folder))


def _given(signature: Signature, columns: dict[str, Array]) -> Any:
    """What the model takes: a data frame, a matrix, or a mapping of arrays."""
    if signature.form == "tensors":
        return columns
    if signature.form == "array":
        return np.column_stack(list(columns.values()))
    import pandas as pd

    # Text as a list: pandas then makes of it what it makes of a file or of JSON, and None is missing as it was in training.
    return pd.DataFrame(
        {
            name if signature.named else int(name): values.tolist() if values.dtype.kind == "O" else values
            for name, values in columns.items()
        }
    )


def _example(model: Any, folder: Path) -> dict[str, Any] | None:
    """The input example that was logged with the model, as columns."""
    found = model.metadata.load_input_example(str(folder))
    if found is None:
        return None
    if isinstance(found, tuple):  # inputs and parameters
        found = found[0]
    if hasattr(found, "columns"):
        return {str(name): found[name].to_numpy() for name in found.columns}
    if isinstance(found, dict):
        return {str(name): np.atleast_1d(np.squeeze(np.asarray(values))).tolist() for name, values in found.items()}
    matrix = np.asarray(found)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    return {str(place): matrix[:, place].tolist() for place in range(matrix.shape[1])}


def plain(result: Any, rows: int) -> Array:
    """Whatever a model returns as float64[rows], float64[rows, outputs], or object[rows] of text.

    Raises:
        ModelError: it is none of these.
    """
    if isinstance(result, Mapping):
        result = np.column_stack([np.asarray(each) for each in result.values()])
    elif hasattr(result, "to_numpy"):
        result = result.to_numpy()
    elif hasattr(result, "detach"):  # a tensor of PyTorch
        result = result.detach().cpu().numpy()
    found = np.asarray(result)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim not in (1, 2) or len(found) != rows or 0 in found.shape:
        raise ModelError(f"the model answers {rows} rows with an array of shape {list(found.shape)}", expected=_RETURN)
    if found.dtype.kind in "OU" and found.ndim == 1:
        texts = found.tolist()
        if set(map(type, texts)) <= {str}:
            return np.array(texts, dtype=object)
    if found.dtype.kind not in "fiubO":
        raise ModelError(f"the model answers with {found.dtype}", expected=_RETURN)
    try:
        return found.astype(np.float64)
    except (TypeError, ValueError):
        raise ModelError("the model answers with values that are neither numbers nor text", expected=_RETURN) from None


if __name__ == "__main__":
    os.nice(_NICE)
    serve(ModelWorker())
