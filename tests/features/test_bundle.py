"""A bundle answers in service as in training, and refuses to load when it would not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial_features.bundle import Bundle
from perennial_features.engine import load_booster
from perennial_features.pyfunc import _load_pyfunc
from perennial_spec.errors import FeatureError, ModelError, RequestError

World = Any


@pytest.fixture
def saved(world: World, tmp_path: Path) -> Path:
    world.bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def request_of(world: World, rows: slice) -> dict[str, list[Any]]:
    columns = {name: values[rows] for name, values in world.columns.items()}
    request = {name: values.tolist() for name, values in columns.items()}
    request["at"] = [f"{moment}Z" for moment in columns["at"]]
    return request


def test_a_loaded_bundle_answers_as_the_one_that_was_saved(world: World, saved: Path) -> None:
    loaded = Bundle.load(saved)
    np.testing.assert_array_equal(loaded.predict(world.columns), world.bundle.predict(world.columns))
    assert loaded.schema == world.schema
    assert loaded.reference == world.bundle.reference
    assert (loaded.kind, loaded.spec, loaded.meta) == (world.bundle.kind, world.bundle.spec, world.bundle.meta)


def test_predictions_are_probabilities_that_tell_the_classes_apart(world: World) -> None:
    scores = world.bundle.predict(world.columns)
    assert scores.dtype == np.float64
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[world.label == 1].mean() > scores[world.label == 0].mean() + 0.1


def test_one_row_a_batch_and_the_training_matrix_get_exactly_the_same_answer(world: World, saved: Path) -> None:
    loaded = Bundle.load(saved)
    trained = world.bundle.predict_encoded(world.encoded.matrix)[:300]
    batch = loaded.predict(loaded.columns(request_of(world, slice(0, 300))))
    request = request_of(world, slice(0, 300))
    rows = [{name: values[row] for name, values in request.items()} for row in range(300)]
    single = np.concatenate([loaded.predict(loaded.columns([row])) for row in rows])
    np.testing.assert_array_equal(batch, trained)
    np.testing.assert_array_equal(single, trained)


def test_score_counts_what_it_answers(world: World) -> None:
    scored = world.bundle.score(world.columns)
    np.testing.assert_array_equal(scored.increments, world.bundle.reference.counts)
    np.testing.assert_array_equal(scored.predictions, world.bundle.predict(world.columns))


def test_an_unseen_category_is_answered_as_missing_and_counted_as_other(world: World) -> None:
    row = {name: values[:1] for name, values in world.columns.items()}
    new = world.bundle.score({**row, "city": np.array(["Atlantis"], dtype=object)})
    absent = world.bundle.score({**row, "city": np.array([None], dtype=object)})
    assert new.predictions[0] == absent.predictions[0]
    series = world.bundle.reference.series
    assert new.increments[series.index(("city", "other"))] == 1
    assert absent.increments[series.index(("city", "missing"))] == 1
    assert absent.increments[series.index(("city", "other"))] == 0


@pytest.mark.parametrize("name", ["model.ubj", "reference.json", "features.py", "spec.json", "smoke.json"])
def test_a_file_that_is_lost_or_changed_stops_the_load(saved: Path, name: str) -> None:
    (saved / name).write_bytes((saved / name).read_bytes() + b" ")
    with pytest.raises(ModelError, match=f"{name} has changed since training"):
        Bundle.load(saved)
    (saved / name).unlink()
    with pytest.raises(ModelError, match=f"has lost its {name}"):
        Bundle.load(saved)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "has no bundle.json"),
        ("{", "bundle.json is not JSON"),
        ("[]", "has format None"),
        ('{"format": 99}', "has format 99"),
        ('{"format": 1}', "bundle.json: kind: Field required"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told(saved: Path, text: str | None, what: str) -> None:
    (saved / "bundle.json").unlink()
    if text is not None:
        (saved / "bundle.json").write_text(text)
    with pytest.raises(ModelError, match=what):
        Bundle.load(saved)


def with_code(world: World, folder: Path, text: str) -> Bundle:
    """The world's bundle with other feature code: its digests are right, its answers are not."""
    bundle: Bundle = world.bundle
    file = folder / "features.py"
    file.write_text(text)
    return replace(bundle, code=replace(bundle.code, file=file))


def test_a_model_that_answers_its_own_rows_differently_does_not_load(world: World, tmp_path: Path) -> None:
    text = world.code.file.read_text().replace("* 1.8", "* 9.9")
    with_code(world, tmp_path, text).save(tmp_path / "bundle")
    with pytest.raises(ModelError, match="answers its own training rows differently") as caught:
        Bundle.load(tmp_path / "bundle")
    assert "train again" in caught.value.next


def test_a_model_whose_code_fails_does_not_load(world: World, tmp_path: Path) -> None:
    with_code(world, tmp_path, "def features(columns):\n    return {'a': 1 / 0}\n").save(tmp_path / "one")
    with pytest.raises(ModelError, match=r"cannot answer its own training rows.*ZeroDivisionError"):
        Bundle.load(tmp_path / "one")
    with_code(world, tmp_path, "def features(columns:\n").save(tmp_path / "two")
    with pytest.raises(ModelError, match="feature code does not load"):
        Bundle.load(tmp_path / "two")


def test_bad_rows_are_the_callers_fault_and_bad_code_the_pipelines(world: World) -> None:
    with pytest.raises(RequestError, match="column 'temperature'"):
        world.bundle.columns({**request_of(world, slice(0, 1)), "temperature": ["warm"]})
    with pytest.raises(FeatureError):
        world.bundle.predict({"temperature": np.zeros(1)})


def test_mlflow_gets_the_same_answers_from_a_frame(world: World, saved: Path) -> None:
    model = _load_pyfunc(str(saved))
    frame = pd.DataFrame({name: values[:50] for name, values in world.columns.items()})
    np.testing.assert_array_equal(model.predict(frame), world.bundle.predict(world.columns)[:50])
    records = frame.drop(columns="at").assign(at=[f"{moment}Z" for moment in world.columns["at"][:50]])
    np.testing.assert_array_equal(model.predict(records), world.bundle.predict(world.columns)[:50])


def test_smoke_rows_are_json_that_a_client_could_send(saved: Path) -> None:
    smoke = json.loads((saved / "smoke.json").read_text())
    assert set(smoke["columns"]) == {"temperature", "seats", "jet", "city", "at"}
    assert len(smoke["predictions"]) == 32


def test_loading_needs_neither_mlflow_nor_pandas_nor_scikit_learn(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    code = (
        "import sys; from pathlib import Path; from perennial_features.bundle import Bundle;"
        f"Bundle.load(Path({str(copy)!r}));"
        "print(sorted({'mlflow', 'pandas', 'sklearn', 'matplotlib', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


class Recorded:
    """XGBoost behind the least that a predictor must have: no way to write the model."""

    def __init__(self, file: str, threads: int) -> None:
        self.file, self.threads = file, threads
        self.booster = load_booster(file, threads)

    def inplace_predict(self, data: Any) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self.booster.inplace_predict(data)
        return found


def test_another_predictor_answers_in_the_place_of_xgboost(world: World, saved: Path, tmp_path: Path) -> None:
    loaded = Bundle.load(saved, threads=2, open_model=Recorded)
    assert isinstance(loaded.booster, Recorded)
    assert (loaded.booster.file, loaded.booster.threads) == (str(saved / "model.ubj"), 2)
    np.testing.assert_array_equal(loaded.predict(world.columns), world.bundle.predict(world.columns))
    with pytest.raises(ModelError, match="opened for answers only, and cannot be written") as caught:
        loaded.save(tmp_path / "copy")
    assert "copy the folder" in caught.value.next


def test_a_predictor_that_answers_otherwise_is_refused(saved: Path) -> None:
    class Constant(Recorded):
        def inplace_predict(self, data: Any) -> np.ndarray[Any, Any]:
            return np.full(len(data), 0.5, dtype=np.float32)

    with pytest.raises(ModelError, match="answers its own training rows differently"):
        Bundle.load(saved, open_model=Constant)


def test_loading_with_another_predictor_does_not_import_xgboost(world: World, saved: Path) -> None:
    answers = json.loads((saved / "smoke.json").read_text())["predictions"]
    code = f"""
import sys
from pathlib import Path
import numpy as np
from perennial_features.bundle import Bundle

class Known:
    def __init__(self, file, threads):
        pass
    def inplace_predict(self, data):
        return np.array({answers!r}, dtype=np.float32)

Bundle.load(Path({str(saved)!r}), open_model=Known)
print(sorted({{"xgboost", "scipy", "sklearn", "pandas", "pyarrow", "mlflow"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("feature", "what"),
    [
        (
            "columns['seats'] - np.mean(columns['seats'])",
            r"'warm' of row 0 is 0 alone and \S+ among 32",
        ),
        ("np.argsort(np.argsort(columns['temperature']))", "'warm' of row 0 is 0 alone and 31 among"),
        (
            "np.array(['few' if len(columns['seats']) < 9 else 'many'] * len(columns['seats']))",
            "'few' alone and 'many'",
        ),
        ("np.random.default_rng().normal(size=len(columns['seats']))", "or on chance"),
        ("np.where(len(columns['seats']) > 9, columns['seats'], np.nan)", "is nan alone and"),
    ],
)
def test_a_model_that_answers_a_row_alone_otherwise_than_in_company_does_not_load(
    world: World, tmp_path: Path, feature: str, what: str
) -> None:
    text = world.code.file.read_text().replace('columns["temperature"] * 1.8 + 32', feature)
    with_code(world, tmp_path, text).save(tmp_path / "bundle")
    with pytest.raises(ModelError, match=what) as caught:
        Bundle.load(tmp_path / "bundle")
    assert "into the query" in caught.value.next
    assert "rows of different requests together" in caught.value.expected
    assert str(tmp_path / "bundle" / "features.py") in caught.value.where


def test_rounding_in_the_last_bits_is_not_a_feature_that_has_moved(world: World, tmp_path: Path) -> None:
    noise = 'columns["temperature"] * 1.8 + 32 + 1e-9 * (len(columns["seats"]) == 1)'
    text = world.code.file.read_text().replace('columns["temperature"] * 1.8 + 32', noise)
    with_code(world, tmp_path, text).verify()


def test_scikit_learn_is_there_again_after_xgboost_is_loaded() -> None:
    code = (
        "from perennial_features.engine import load_xgboost; x = load_xgboost();"
        "import sklearn; print(sklearn.__name__, x.Booster.__name__, load_xgboost() is x)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["sklearn", "Booster", "True"]
