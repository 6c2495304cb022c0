"""MLflow scoring as MLflow's own scoring server does it: the same bodies, the same predictions, the same kinds of refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial_features.bundle import Bundle

ROWS: list[dict[str, Any]] = [
    {"distance": 750.0, "stops": 1, "direct": False, "carrier": "UA", "departure": "2013-06-01T05:15:00Z"},
    {"distance": None, "stops": 0, "direct": True, "carrier": None, "departure": "2013-06-02T23:00:00Z"},
    {"distance": 1200.25, "stops": 2, "direct": True, "carrier": "new", "departure": "2013-06-03T12:30:00Z"},
]
NAMES = list(ROWS[0])
JSON = "application/json"


@pytest.fixture(scope="module")
def theirs(bundles: Any) -> Iterator[Any]:
    """MLflow's scoring server around the same model."""
    from mlflow.pyfunc import PyFuncModel, scoring_server
    from mlflow.pyfunc.model import PythonModel
    from starlette.testclient import TestClient

    bundle = Bundle.load(bundles["one"])

    class Ours(PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # a type would be a schema
            if isinstance(model_input, dict):  # of arrays, as TensorFlow Serving's form gives them
                model_input = {
                    name: np.ravel(np.array(values, dtype=object)).tolist() for name, values in model_input.items()
                }
            records = pd.DataFrame(model_input)[NAMES].astype(object).replace({np.nan: None}).to_dict("records")
            return bundle.predict(bundle.columns(records))

    class Served(PyFuncModel):  # type: ignore[misc]
        def __init__(self) -> None:
            self._model = Ours()

        metadata = property(lambda self: Metadata())

        def predict(self, data: Any, params: Any = None) -> Any:
            return self._model.predict(None, data)

    class Metadata:
        def get_input_schema(self) -> None:
            return None

        def get_params_schema(self) -> None:
            return None

        signature = None

    with TestClient(scoring_server.init(Served())) as client:
        yield client


def both(one: Any, theirs: Any, body: bytes, kind: str = JSON) -> tuple[Any, Any]:
    return tuple(each.post("/invocations", content=body, headers={"Content-Type": kind}) for each in (one.http, theirs))  # type: ignore[return-value]


FORMS: dict[str, Any] = {
    "split": {"dataframe_split": {"columns": NAMES, "data": [list(row.values()) for row in ROWS]}},
    "split with index": {
        "dataframe_split": {"index": [0, 1, 2], "columns": NAMES, "data": [list(row.values()) for row in ROWS]}
    },
    "records": {"dataframe_records": ROWS},
    "instances": {"instances": [ROWS[0], ROWS[2]]},  # MLflow itself cannot do with null in this form
    "inputs": {"inputs": {name: [row[name] for row in ROWS] for name in NAMES}},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_body_has_the_same_predictions(one: Any, theirs: Any, form: str) -> None:
    ours, other = both(one, theirs, json.dumps(FORMS[form]).encode())
    assert other.status_code == 200, other.text
    assert ours.status_code == 200
    assert ours.json()["predictions"] == other.json()["predictions"]


def test_csv_has_the_same_predictions(one: Any, theirs: Any) -> None:
    ours, other = both(one, theirs, pd.DataFrame(ROWS).to_csv(index=False).encode(), "text/csv")
    assert (ours.status_code, other.status_code) == (200, 200)
    assert ours.json()["predictions"] == other.json()["predictions"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"no json", JSON),
        (b"{}", JSON),
        (b'{"rows": []}', JSON),
        (b'{"dataframe_split": [1]}', JSON),
        (b'{"instances": [], "inputs": []}', JSON),
        (b"x", "application/xml"),
    ],
)
def test_the_same_body_is_refused_by_both(one: Any, theirs: Any, body: bytes, kind: str) -> None:
    ours, other = both(one, theirs, body, kind)
    assert ours.status_code == other.status_code
    assert 400 <= ours.status_code < 500


def test_health_and_version_are_where_mlflows_clients_look(one: Any, theirs: Any) -> None:
    for path in ("/ping", "/health", "/version"):
        assert one.http.get(path).status_code == theirs.get(path).status_code == 200
