"""Which backend runs steps, read from the environment of the DAG processor and the workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from perennial_spec.errors import PlatformError, nearest

Backend = Literal["local", "kubernetes"]
ENV_BACKEND = "PERENNIAL_BACKEND"
ENV_POD_FILE = "PERENNIAL_POD_FILE"


@dataclass(frozen=True)
class Settings:
    """Where a step runs. A pipeline cannot tell the difference."""

    backend: Backend = "local"
    """PERENNIAL_BACKEND. `local`: a child process of the Airflow worker; `kubernetes`: a pod."""
    pod_file: Path | None = None
    """PERENNIAL_POD_FILE: YAML of `perennial_k8s.settings.PodSettings`. None unless the backend is `kubernetes`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings of this process.

        Raises:
            PlatformError: a backend that does not exist, or Kubernetes without a file of settings.
        """
        environment = os.environ if environment is None else environment
        backend = environment.get(ENV_BACKEND) or "local"
        if backend not in get_args(Backend):
            guess = nearest(backend, get_args(Backend))
            raise PlatformError(
                f"{ENV_BACKEND} is {backend!r}" + (f"; did you mean {guess!r}?" if guess else ""),
                expected=" or ".join(get_args(Backend)),
            )
        pod_file = environment.get(ENV_POD_FILE)
        if backend == "kubernetes" and not pod_file:
            raise PlatformError(
                f"{ENV_POD_FILE} is not set",
                expected="a YAML file with at least the image of the steps and the namespace",
                next=f"set it, or {ENV_BACKEND}=local",
            )
        return cls(cast("Backend", backend), Path(pod_file) if pod_file else None)
