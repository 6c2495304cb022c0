"""What a client may ask for, and what it gets: the output tensors of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial_features.schema import FeatureSchema
from perennial_serving.answers import Answer
from perennial_serving.oip.datatypes import OF_KIND
from perennial_serving.rows import Rows
from perennial_spec.errors import RequestError

OUTPUTS = ("score", "version", "prediction_id")
PLATFORM = "perennial_xgboost"
PLATFORM_PYFUNC = "mlflow_pyfunc"


@dataclass(frozen=True)
class OipRequest:
    """A request, whichever way it came."""

    rows: Rows
    id: str | None
    outputs: tuple[str, ...]
    """The tensors that the client wants; all when it does not say."""
    binary: frozenset[str] = frozenset()
    """Those that it wants as raw bytes."""


@dataclass(frozen=True)
class Output:
    """One tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    values: Any
    """Flat, row-major: float64 array, or list of numbers or text."""


def need_output(name: Any, where: str) -> str:
    """`name` if it is one of `OUTPUTS`.

    Raises:
        RequestError: it is not.
    """
    if not isinstance(name, str) or name not in OUTPUTS:
        raise RequestError("is no output of this model", where=f"{where}.name", expected=f"one of {', '.join(OUTPUTS)}")
    return name


def outputs_of(request: OipRequest, answer: Answer) -> list[Output]:
    """The tensors that the request asks for, in its order."""
    count = len(answer.versions)
    found = []
    for name in request.outputs:
        if name == "score":
            found.append(_score(answer.scores, count))
        else:
            found.append(Output(name, "BYTES", [count], answer.versions if name == "version" else answer.ids))
    return found


def model_version(answer: Answer) -> str:
    """All versions that took part, as one name."""
    return ",".join(answer.distinct)


def metadata(
    model: str,
    versions: Sequence[str],
    schema: FeatureSchema,
    width: int = 1,
    *,
    text: bool = False,
    platform: str = PLATFORM,
) -> dict[str, Any]:
    """Model metadata: what goes in and what comes out.

    Args:
        model: the pipeline.
        versions: that can be asked for.
        schema: of the model.
        width: scores per row.
        text: scores are text.
        platform: what answers.
    """
    inputs = [{"name": c.name, "datatype": OF_KIND[c.kind], "shape": [-1]} for c in schema.inputs]
    numbers = () if text else ("score",)
    outputs = [{"name": name, "datatype": "FP64" if name in numbers else "BYTES", "shape": [-1]} for name in OUTPUTS]
    if width > 1:
        outputs[0]["shape"] = [-1, width]
    return {
        "name": model,
        "versions": list(versions),
        "platform": platform,
        "inputs": inputs,
        "outputs": outputs,
    }


def _score(scores: Any, count: int) -> Output:
    if isinstance(scores, list) and not isinstance(scores[0], list):
        return Output("score", "BYTES" if isinstance(scores[0], str) else "FP64", [count], scores)
    array = np.asarray(scores)
    shape = [int(n) for n in array.shape]
    if array.dtype.kind in "OU":
        return Output("score", "BYTES", shape, array.ravel().tolist())
    return Output("score", "FP64", shape, np.ascontiguousarray(array, dtype=np.float64).reshape(-1))
