from __future__ import annotations

from pathlib import Path

import pytest

from perennial_k8s.settings import load_pod_settings
from perennial_spec.errors import PlatformError

GOOD = "image: steps:1\nnamespace: growth\n"


def test_two_lines_are_enough(tmp_path: Path) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text(GOOD)
    assert load_pod_settings(file).namespace == "growth"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("namespace: growth\n", r"pods\.yaml: image: Field required"),
        (GOOD + "enviroment: {}\n", r"enviroment is not a setting; did you mean 'environment'\?"),
        (GOOD + "environment: {DATABASE_PASSWORD: x}\n", "DATABASE_PASSWORD looks like a secret: give it by reference"),
        (GOOD + "environment: {SOURCE: 'postgresql://me:pw@db/x'}\n", "SOURCE looks like a secret"),
        (GOOD + "mounts: [{path: /a}]\n", "exactly one of claim, config_map or secret"),
        (GOOD + "user: 0\n", "user: Input should be greater than or equal to 1"),
        ("image: [\n", r"pods\.yaml: not YAML"),
        ("", "the file: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_file_says_what_and_where(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text(text)
    with pytest.raises(PlatformError, match=message):
        load_pod_settings(file)


def test_a_secret_in_the_file_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text(GOOD + "environment: {DATABASE_PASSWORD: hunter2}\n")
    with pytest.raises(PlatformError) as caught:
        load_pod_settings(file)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"nowhere\.yaml: the settings of step pods cannot be read: No such file"):
        load_pod_settings(tmp_path / "nowhere.yaml")
