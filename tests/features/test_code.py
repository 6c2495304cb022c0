"""The feature function is held to its contract, and its errors lead to the user's line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perennial_features.code import FeatureCode, load_features
from perennial_spec.errors import FeatureError

Write = Callable[[str], FeatureCode]
COLUMNS = {"x": np.array([1.0, 2.0, np.nan]), "city": np.array(["Oslo", None, "Rome"], dtype=object)}


def returning(write: Write, expression: str) -> FeatureCode:
    return write(f"import numpy as np\n\n\ndef features(columns):\n    return {expression}\n")


def test_numbers_text_and_booleans_pass_and_scalars_are_spread_over_the_rows(write_features: Write) -> None:
    code = returning(
        write_features,
        "{'a': columns['x'] * 2, 'b': columns['city'], 'c': columns['x'] > 1, 'd': 7, 'e': 'here', 'f': [1, 2, 3],"
        " 'g': np.array(['a', 'b', 'c'])}",
    )
    found = code.apply(COLUMNS)
    assert found["a"].tolist()[:2] == [2.0, 4.0]
    assert found["b"].tolist() == ["Oslo", None, "Rome"]
    assert found["c"].tolist() == [False, True, False]
    assert found["d"].tolist() == [7, 7, 7]
    assert found["e"].tolist() == ["here"] * 3
    assert found["f"].dtype.kind == "i"
    assert found["g"].dtype == object


def test_missing_text_may_be_nan_and_objects_of_numbers_become_numbers(write_features: Write) -> None:
    code = returning(
        write_features,
        "{'text': np.array(['a', float('nan'), None], dtype=object), 'number': np.array([1, None, True], dtype=object)}",
    )
    found = code.apply(COLUMNS)
    assert found["text"].tolist() == ["a", None, None]
    np.testing.assert_array_equal(found["number"], [1.0, np.nan, 1.0])


def test_trace_tells_which_columns_are_read_and_asking_is_not_reading(write_features: Write) -> None:
    code = returning(write_features, "{'a': columns['x'], 'n': len(columns), 'has': 'city' in columns}")
    assert code.trace(COLUMNS)[1] == ("x",)
    everything = returning(write_features, "dict(columns)")
    assert everything.trace(COLUMNS)[1] == ("x", "city")


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("None", "returned None"),
        ("[columns['x']]", "returned a list"),
        ("{}", "returned no features"),
        ("{'a': columns['x'][:2]}", "returned 'a' with 2 values for 3 rows"),
        ("{'a': np.zeros((3, 2))}", r"returned 'a' with 2 dimensions, shape \(3, 2\)"),
        ("{'a': [[1], [2, 3], []]}", "returned 'a' as a list that is no array"),
        ("{'a': np.zeros(3, dtype=complex)}", "returned 'a' as complex128, which a model cannot use"),
        ("{'a': np.array(['2013-01-01'] * 3, dtype='datetime64[us]')}", "timedelta64"),
        ("{'a': np.array([1, 'b', None], dtype=object)}", "objects of types NoneType, int, str"),
        ("{'prediction': columns['x']}", "named a feature 'prediction'"),
        ("{'a[0]': columns['x']}", r"named a feature 'a\[0\]'"),
        ("{3: columns['x']}", "named a feature 3"),
        ("{'': columns['x']}", "named a feature ''"),
    ],
)
def test_a_broken_contract_is_named_with_the_line_of_the_function(
    write_features: Write, expression: str, what: str
) -> None:
    code = returning(write_features, expression)
    with pytest.raises(FeatureError, match=what) as caught:
        code.apply(COLUMNS)
    assert caught.value.where == f"{code.file}:4"
    assert caught.value.expected.startswith("a mapping of feature names")


def test_an_exception_in_user_code_is_shown_with_its_own_line(write_features: Write) -> None:
    code = write_features("def helper(x):\n    return 1 / 0\n\n\ndef features(columns):\n    return {'a': helper(1)}\n")
    with pytest.raises(FeatureError, match=r"features\(\) raised ZeroDivisionError: division by zero") as caught:
        code.apply(COLUMNS)
    assert caught.value.where == f"{code.file}:2"


def test_a_column_that_is_not_there_is_named_with_the_nearest(write_features: Write) -> None:
    code = returning(write_features, "{'a': columns['ciyt']}")
    with pytest.raises(FeatureError, match=r"reads the column 'ciyt'.*did you mean 'city'") as caught:
        code.apply(COLUMNS)
    assert "x, city" in caught.value.expected
    assert "sensitive" in caught.value.next


def test_the_inputs_cannot_be_changed(write_features: Write) -> None:
    columns = {"x": np.array([1.0, np.nan])}
    code = write_features("def features(columns):\n    x = columns['x']\n    x[:] = 0\n    return {'x': x}\n")
    with pytest.raises(FeatureError, match="read-only") as caught:
        code.apply(columns)
    assert "copy" in caught.value.next
    assert columns["x"][0] == 1.0


def test_columns_of_different_lengths_and_none_at_all_are_refused(write_features: Write) -> None:
    code = returning(write_features, "{'a': 1}")
    with pytest.raises(FeatureError, match=r"lengths \[1, 2\]"):
        code.apply({"x": np.zeros(1), "y": np.zeros(2)})
    with pytest.raises(FeatureError, match="no input columns"):
        code.apply({})


def test_a_file_that_is_missing_or_broken_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "features.py"
    with pytest.raises(FeatureError, match="cannot be read: No such file"):
        load_features(file, "features")
    file.write_text("x = 1\ndef features(columns:\n")
    with pytest.raises(FeatureError, match="not valid Python") as syntax:
        load_features(file, "features")
    assert syntax.value.where == f"{file}:2"
    file.write_text("x = 1\n\nraise ValueError('no')\n")
    with pytest.raises(FeatureError, match="raised ValueError while it was loaded: no") as load:
        load_features(file, "features")
    assert load.value.where == f"{file}:3"
    file.write_text("import neighbour\n")
    with pytest.raises(FeatureError, match="neighbour") as neighbour:
        load_features(file, "features")
    assert "installed packages" in neighbour.value.next


def test_a_function_of_another_name_is_told(tmp_path: Path) -> None:
    file = tmp_path / "features.py"
    file.write_text("def feature(columns):\n    return {}\n")
    with pytest.raises(FeatureError, match="no function 'features'; did you mean 'feature'"):
        load_features(file, "features")


def test_two_versions_of_one_file_live_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "features.py"
    text = "from dataclasses import dataclass\n\n\n@dataclass\nclass C:\n    x: int = {0}\n\n\n"
    text += "def features(columns):\n    return {{'a': C().x}}\n"
    file.write_text(text.format(1))
    one = load_features(file, "features")
    file.write_text(text.format(2))
    two = load_features(file, "features")
    assert one.apply(COLUMNS)["a"][0] == 1
    assert two.apply(COLUMNS)["a"][0] == 2
    assert not list(tmp_path.rglob("*.pyc"))
