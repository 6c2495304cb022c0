from __future__ import annotations

import pickle

import pytest

from perennial_spec.errors import PlatformError, SpecError
from perennial_spec.platform import Platform


def test_the_platform_survives_the_environment() -> None:
    platform = Platform(store="/s", mlflow_url="http://127.0.0.1:5000")
    assert platform.to_environment() == {"PERENNIAL_STORE": "/s", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
    assert Platform.from_environment(platform.to_environment()) == platform


def test_a_missing_variable_is_named_with_what_to_do() -> None:
    with pytest.raises(PlatformError, match="PERENNIAL_STORE is not set") as caught:
        Platform().table("demo", "data")
    assert "perennial up" in str(caught.value)


def test_errors_survive_pickling_as_airflow_needs() -> None:
    error = pickle.loads(pickle.dumps(SpecError("what", where="f:1", expected="x", next="y")))
    assert isinstance(error, SpecError)
    assert str(error) == "f:1: what\n  expected: x\n  next: y"
