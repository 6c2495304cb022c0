from __future__ import annotations

from pathlib import Path

import pytest

from perennial_operators.settings import Settings
from perennial_spec.errors import PlatformError


def test_steps_run_locally_unless_told() -> None:
    assert Settings.from_environment({}) == Settings("local", None)


def test_kubernetes_comes_with_a_file() -> None:
    found = Settings.from_environment({"PERENNIAL_BACKEND": "kubernetes", "PERENNIAL_POD_FILE": "/etc/pods.yaml"})
    assert found == Settings("kubernetes", Path("/etc/pods.yaml"))


def test_kubernetes_without_a_file_says_what_to_set() -> None:
    with pytest.raises(PlatformError, match=r"PERENNIAL_POD_FILE is not set[\s\S]*PERENNIAL_BACKEND=local"):
        Settings.from_environment({"PERENNIAL_BACKEND": "kubernetes"})


def test_a_backend_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlatformError, match=r"PERENNIAL_BACKEND is 'kubernets'; did you mean 'kubernetes'\?"):
        Settings.from_environment({"PERENNIAL_BACKEND": "kubernets"})
