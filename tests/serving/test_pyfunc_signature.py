"""A logged model's folder: its signature as columns of a request, what it may answer, and what is said of those that cannot be served."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.models import infer_signature
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

from perennial_features.request import columns_from_rows
from perennial_features.schema import FeatureSchema, InputColumn
from perennial_serving.model_worker import ModelWorker, plain
from perennial_serving.pyfunc import is_mlflow_model, load_pyfunc
from perennial_serving.registered import Identity, identity, model_uri, note_tags
from perennial_serving.registry import Registry
from perennial_serving.settings import Settings
from perennial_serving.signature import Signature, read_signature
from perennial_spec import names
from perennial_spec.errors import ModelError, RequestError

COLUMNS = Schema(
    [
        ColSpec(DataType.double, "amount"),
        ColSpec(DataType.float, "share"),
        ColSpec(DataType.long, "visits"),
        ColSpec(DataType.integer, "size", required=False),
        ColSpec(DataType.boolean, "vip", required=False),
        ColSpec(DataType.string, "plan", required=False),
        ColSpec(DataType.datetime, "since"),
    ]
)
ROW = {"amount": 1.5, "share": 0.25, "visits": 3, "size": 4, "vip": True, "plan": "a", "since": "2020-01-01T00:00:00Z"}


def signature(inputs: Schema, outputs: Schema | None = None) -> Signature:
    return read_signature(ModelSignature(inputs, outputs).to_dict(), "MLmodel")


def typed(found: Signature, *rows: dict[str, Any]) -> dict[str, Any]:
    return found.typed(columns_from_rows(list(rows), found.schema))


def test_columns_have_the_types_of_the_signature() -> None:
    found = signature(COLUMNS)
    columns = typed(found, ROW)
    kinds = {name: values.dtype.str for name, values in columns.items()}
    assert kinds == {
        "amount": "<f8",
        "share": "<f4",
        "visits": "<i8",
        "size": "<i4",
        "vip": "|b1",
        "plan": "|O",
        "since": "<M8[us]",
    }
    assert Signature.from_json(json.loads(json.dumps(found.to_json()))).schema == found.schema


def test_what_is_not_required_may_be_left_out() -> None:
    found = signature(COLUMNS)
    row = {name: value for name, value in ROW.items() if name not in {"size", "vip", "plan"}}
    columns = typed(found, row, row)
    assert "size" not in columns and "vip" not in columns
    assert columns["plan"].tolist() == [None, None]
    with pytest.raises(RequestError, match="column 'visits' is missing"):
        typed(found, {name: value for name, value in ROW.items() if name != "visits"})


@pytest.mark.parametrize(
    ("value", "where", "what", "expected"),
    [
        ({"size": 2**40}, "column 'size', row 1", "too large", "a whole number of 32 bits"),
        ({"share": 1e300}, "column 'share', row 1", "too large", "fits into 32 bits"),
        ({"visits": None}, "column 'visits'", "the value is missing", "int64, which has no missing value"),
        ({"size": None}, "column 'size'", "the value is missing", "int32, which has no missing value"),
    ],
)
def test_a_value_that_the_type_cannot_hold_is_refused_with_its_column(
    value: Any, where: str, what: str, expected: str
) -> None:
    with pytest.raises(RequestError, match=what) as refused:
        typed(signature(COLUMNS), ROW, {**ROW, **value})
    assert refused.value.where == where
    assert expected in refused.value.expected


def test_a_matrix_has_columns_by_number_and_several_tensors_by_name() -> None:
    found = signature(Schema([TensorSpec(np.dtype(np.float32), (-1, 3))]))
    assert (found.form, [column.name for column in found.inputs]) == ("array", ["0", "1", "2"])
    found = signature(
        Schema([TensorSpec(np.dtype(np.int64), (-1,), "a"), TensorSpec(np.dtype(np.float64), (-1, 1), "b")])
    )
    assert (found.form, typed(found, {"a": 1, "b": 2.5})["b"].tolist()) == ("tensors", [2.5])
    nameless = signature(Schema([ColSpec(DataType.double), ColSpec(DataType.string)]))
    assert (nameless.named, [column.name for column in nameless.inputs]) == (False, ["0", "1"])


@pytest.mark.parametrize(
    ("outputs", "width", "text"),
    [
        (None, None, False),
        (Schema([ColSpec(DataType.string)]), 1, True),
        (Schema([ColSpec(DataType.double, "a"), ColSpec(DataType.double, "b")]), 2, False),
        (Schema([TensorSpec(np.dtype(np.float64), (-1, 4))]), 4, False),
        (Schema([TensorSpec(np.dtype(object), (-1,))]), 1, True),
    ],
)
def test_the_outputs_say_how_many_values_there_are_and_whether_they_are_text(
    outputs: Schema | None, width: int | None, text: bool
) -> None:
    found = signature(COLUMNS, outputs)
    assert (found.outputs, found.text) == (width, text)


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        (Schema([ColSpec(Array(DataType.double), "a")]), "an input of type array"),
        (Schema([ColSpec(DataType.binary, "a")]), "an input of type binary"),
        (Schema([TensorSpec(np.dtype(np.float32), (-1, 28, 28))]), r"a tensor of shape \[-1, 28, 28\]"),
        (Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]), r"a tensor of shape \[-1, -1\]"),
        (Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "a")]), r"a tensor of shape \[-1, 2\]"),
        (Schema([TensorSpec(np.dtype(np.uint8), (-1, 2))]), "a tensor of uint8"),
    ],
)
def test_what_cannot_be_sent_row_by_row_is_refused(inputs: Schema, what: str) -> None:
    with pytest.raises(ModelError, match=what) as refused:
        signature(inputs)
    assert "wrap the model" in refused.value.next


@pytest.mark.parametrize("text", [None, {}, {"inputs": ""}, {"inputs": None}])
def test_without_a_signature_it_says_how_to_log_one(text: Any) -> None:
    with pytest.raises(ModelError, match="the model has no signature") as refused:
        read_signature(text, "MLmodel")
    assert "infer_signature" in refused.value.next


@pytest.mark.parametrize("inputs", ["{", "3", "[]", "[{}]", '[{"type": "tensor", "tensor-spec": {}}]'])
def test_a_damaged_signature_is_refused(inputs: str) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_signature({"inputs": inputs}, "MLmodel")


@pytest.mark.parametrize(
    ("described", "what"),
    [
        (b"\xff\xfe\xff", "the model's description cannot be read"),
        (b"{", "the model's description cannot be read: ParserError"),
        (b"- a", "the model's description is no mapping"),
        (b"flavors: {keras: {}}", "the model has no python_function flavour"),
        (b"flavors: {python_function: {}}", "the model has no signature"),
    ],
)
def test_a_folder_that_is_no_model_that_can_be_served_is_refused(tmp_path: Path, described: bytes, what: str) -> None:
    assert not is_mlflow_model(tmp_path)
    (tmp_path / "MLmodel").write_bytes(described)
    assert is_mlflow_model(tmp_path)
    with pytest.raises(ModelError, match=what):
        load_pyfunc(tmp_path, Settings())


def test_whatever_a_model_returns_becomes_numbers_or_text() -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2], "b": [True, False]})
    result: Any
    for result in (frame, frame.to_numpy(), {"a": [1, 2], "b": [1, 0]}, [[1, 1], [2, 0]]):
        assert plain(result, 2).tolist() == [[1.0, 1.0], [2.0, 0.0]]
    for result in (frame["a"], [1, 2], np.array([[1.0], [2.0]]), pd.Series([1, 2], dtype=object)):
        assert plain(result, 2).tolist() == [1.0, 2.0]
    for result in (["x", "y"], np.array(["x", "y"]), pd.Series(["x", "y"], dtype="category")):
        assert plain(result, 2).tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("result", "what"),
    [
        ([1.0], r"answers 2 rows with an array of shape \[1\]"),
        (3.0, r"an array of shape \[\]"),
        (np.zeros((2, 0)), r"an array of shape \[2, 0\]"),
        (np.zeros((2, 2, 2)), r"an array of shape \[2, 2, 2\]"),
        ([{"a": 1}, {"a": 2}], "neither numbers nor text"),
        (["x", None], "neither numbers nor text"),
        (np.array(["2020", "2021"], dtype="M8[s]"), "answers with datetime64"),
    ],
)
def test_an_answer_that_is_neither_is_the_models_fault(result: Any, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        plain(result, 2)


@pytest.mark.parametrize(
    ("answer", "inputs", "what"),
    [
        ("[float('nan'), 1.0]", {"a": [1.0, 2.0]}, "answers its input example with a number that is not finite"),
        ("[1.0]", {"a": [1.0, 2.0]}, "answers 2 rows with an array of shape"),
        (
            "[1.0, 2.0]",
            {"a": ["x", "y"]},
            "the model's input example is not of its signature: row 0: column 'a': got 'x'",
        ),
        ("[1.0, 2.0]", {"b": [1.0, 2.0]}, "the model's input example is not of its signature: column 'a' is missing"),
    ],
)
def test_a_model_that_does_not_answer_its_example_is_refused(
    tmp_path: Path, answer: str, inputs: dict[str, list[Any]], what: str
) -> None:
    import mlflow.pyfunc
    import pandas as pd

    code = f"import mlflow\nclass M(mlflow.pyfunc.PythonModel):\n    def predict(self, context, model_input):\n        return {answer}\n"
    (tmp_path / "m.py").write_text(f"{code}mlflow.models.set_model(M())\n")
    example = pd.DataFrame(inputs)
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(tmp_path / "m.py"),
        signature=infer_signature(example),
        input_example=example,
        pip_requirements=[],
    )
    taken = signature(Schema([ColSpec(DataType.double, "a")]))  # whatever MLflow let pass when it was logged
    with pytest.raises(ModelError, match=what):
        ModelWorker()({"load": str(tmp_path / "model"), "signature": taken.to_json()}, {})


SCHEMA = FeatureSchema(
    inputs=tuple(InputColumn(name=name, kind="number") for name in ("age", "income", "sex")), features=()
)


def test_tags_say_what_rows_are_joined_by_and_what_the_log_may_hold(tmp_path: Path) -> None:
    assert identity(SCHEMA, tmp_path) == Identity("", False, ("age", "income", "sex"))
    data = {"entity": "id", "timestamp": "at", "sensitive": ["sex"], "redact": {"id": "hash"}, "exclude": ["income"]}
    spec = {"data": data, "monitoring": {"log": {"share": "10%"}}}
    for tags, expected in (
        ({names.TAG_ENTITY: "id"}, Identity("id", False, ("age", "income", "sex"))),
        ({names.TAG_ENTITY: "x", names.TAG_SPEC: json.dumps(spec)}, Identity("id", True, ("age", "at"), 0.1)),
    ):
        folder = tmp_path / str(len(tags))
        folder.mkdir()
        note_tags(folder, partial(dict, tags))
        note_tags(folder, dict)  # once: a restart does not ask again
        assert identity(SCHEMA, folder) == expected


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"data": 3}', '{"data": {"entity": ""}}'])
def test_a_tag_that_is_no_spec_is_refused(tmp_path: Path, text: str) -> None:
    note_tags(tmp_path, lambda: {names.TAG_SPEC: text})
    with pytest.raises(ModelError, match=r"the tag perennial\.spec is not a pipeline's spec") as refused:
        identity(SCHEMA, tmp_path)
    assert names.TAG_ENTITY in refused.value.next


def test_a_version_whose_files_are_not_behind_the_registry_is_refused(pipeline: Any, mlflow: Any) -> None:
    made = mlflow.post("model-versions/create", name=pipeline.name, source="s3://bucket/model")["model_version"]
    registry = Registry(mlflow.url, 5.0)
    with pytest.raises(ModelError, match=r"is stored at s3:\.\.\.") as refused:
        registry.bundle_uri(pipeline.name, made["version"])
    assert "--serve-artifacts" in refused.value.next
    registry.close()


def test_a_version_that_says_its_place_is_not_asked_for_it() -> None:
    def nobody(path: str, params: dict[str, str]) -> dict[str, Any]:
        raise AssertionError(path)

    assert model_uri({"source": "mlflow-artifacts:/0/models/m-1/artifacts"}, nobody).endswith("artifacts")


def test_the_signature_that_mlflow_infers_from_data_is_read() -> None:
    import pandas as pd

    frame = pd.DataFrame({"n": [1.0, np.nan], "t": ["a", None], "i": [1, 2]})
    found = read_signature(infer_signature(frame, np.zeros(2)).to_dict(), "MLmodel")
    assert [(column.name, column.kind, column.nullable) for column in found.inputs] == [
        ("n", "number", True),
        ("t", "text", True),
        ("i", "integer", False),
    ]
