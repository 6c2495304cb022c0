from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from perennial_cli.scaffold.guess import guess, read_columns
from perennial_cli.scaffold.write import write_pipeline
from perennial_spec.errors import PerennialError, SourceError, SpecError
from perennial_spec.load import load_pipeline


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    file = tmp_path / "customers.parquet"
    duckdb.sql(
        "SELECT 'c' || i AS customer_id, TIMESTAMP '2024-01-01' + INTERVAL (i) HOUR AS signed_up, i % 90 AS age, "
        "['a','b','c'][i % 3 + 1] AS plan, i % 2 = 0 AS churned FROM range(500) t(i)"
    ).write_parquet(str(file))
    return file


def test_a_new_pipeline_from_data_is_a_spec_that_loads(customers: Path, tmp_path: Path) -> None:
    columns, rows = read_columns(customers)
    guessed = guess(columns, rows, timestamp=None, entity=None, label=None)
    assert (guessed.timestamp, guessed.entity, guessed.label) == ("signed_up", "customer_id", "churned")
    assert guessed.kind == "xgboost.classifier"
    write_pipeline(tmp_path / "churn", "churn", str(customers), guessed)
    pipeline = load_pipeline(tmp_path / "churn")
    assert pipeline.spec.data.sources == {"churn": str(customers)}
    assert [c.name for c in guessed.inputs] == ["age", "plan"]


def test_a_label_with_many_values_makes_a_regressor(customers: Path) -> None:
    columns, rows = read_columns(customers)
    assert guess(columns, rows, timestamp=None, entity=None, label="age").kind == "xgboost.regressor"


def test_an_existing_folder_is_never_overwritten(customers: Path, tmp_path: Path) -> None:
    columns, rows = read_columns(customers)
    guessed = guess(columns, rows, timestamp=None, entity=None, label=None)
    write_pipeline(tmp_path / "churn", "churn", str(customers), guessed)
    (tmp_path / "churn" / "features.py").write_text("# mine\n")
    with pytest.raises(SpecError, match="there already"):
        write_pipeline(tmp_path / "churn", "churn", str(customers), guessed)
    assert (tmp_path / "churn" / "features.py").read_text() == "# mine\n"


def test_a_role_that_cannot_be_guessed_is_asked_for(customers: Path) -> None:
    columns, rows = read_columns(customers)
    without_label = [c for c in columns if c.name != "churned"]
    with pytest.raises(SourceError, match="no column looks like the label") as caught:
        guess(without_label, rows, timestamp=None, entity=None, label=None)
    assert "--label COLUMN" in str(caught.value)


def test_a_column_that_is_not_there_is_answered_with_the_nearest(customers: Path) -> None:
    columns, rows = read_columns(customers)
    with pytest.raises(SourceError, match="there is no column 'churnd'") as caught:
        guess(columns, rows, timestamp=None, entity=None, label="churnd")
    assert "did you mean 'churned'?" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", None, "does not exist"),
        ("a.xlsx", b"x", "files ending in '.xlsx' are not known"),
        ("a.parquet", b"junk", "cannot be read"),
    ],
)
def test_a_file_that_is_no_data_is_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PerennialError, match=words):
        read_columns(tmp_path / name)
