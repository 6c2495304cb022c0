"""What the platform, not a pipeline, decides about the pods of steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from perennial_spec.base import Model
from perennial_spec.errors import PlatformError, nearest
from perennial_spec.units import Memory

ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|CREDENTIALS?|_KEY)$", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]+:[^/\s@]+@")


def _without_secrets(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if _SECRET_NAME.search(name) or _PASSWORD_IN_URL.search(value):
            raise ValueError(f"{name} looks like a secret: give it by reference, under secret_environment")
    return environment


class SecretKey(Model):
    """One key of a Kubernetes Secret."""

    secret: ObjectName
    key: str


class Mount(Model):
    """A volume that every step sees, for example the folder of pipelines."""

    path: Annotated[str, StringConstraints(pattern=r"^/.+")]
    claim: ObjectName | None = None
    """A PersistentVolumeClaim."""
    config_map: ObjectName | None = None
    secret: ObjectName | None = None
    read_only: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.claim, self.config_map, self.secret)) != 1:
            raise ValueError("expected exactly one of claim, config_map or secret")
        return self


class PodSettings(Model):
    """Where pods of steps run, and as whom."""

    image: str = Field(min_length=1)
    """The steps image, best pinned by digest."""
    namespace: ObjectName
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[ObjectName, ...] = ()
    service_account_prefix: ObjectName = "perennial"
    """Each kind of step has an account of its own: `<prefix>-train`, `<prefix>-deploy`, ..."""
    environment: Annotated[dict[EnvironmentName, str], AfterValidator(_without_secrets)] = Field(default_factory=dict)
    """Variables that everyone may read: PERENNIAL_STORE, MLFLOW_TRACKING_URI, ..."""
    secret_environment: dict[EnvironmentName, SecretKey] = Field(default_factory=dict)
    """Variables whose values stay in Secrets; the manifest only names them."""
    mounts: tuple[Mount, ...] = ()
    tmp_size: Memory = 10 * 2**30
    """Scratch space, the only place a step can write to."""
    user: int = Field(default=10001, ge=1)
    """Numeric, because Kubernetes cannot tell whether a name is root."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class: ObjectName | None = None


def load_pod_settings(file: Path) -> PodSettings:
    """Settings from a YAML file.

    Raises:
        PlatformError: the file cannot be read, or does not say what it must.
    """
    try:
        value = yaml.safe_load(file.read_text())
        return PodSettings.model_validate(value)
    except OSError as error:
        raise PlatformError(
            f"the settings of step pods cannot be read: {error.strerror}",
            where=str(file),
            expected="a YAML file with at least image and namespace",
        ) from None
    except yaml.YAMLError as error:
        raise PlatformError(f"not YAML: {error}", where=str(file)) from None
    except ValidationError as error:
        raise PlatformError(_first_sentence(error), where=str(file), expected="PodSettings") from None


def _first_sentence(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, detail["loc"])) or "the file"
    if detail["type"] == "extra_forbidden":
        guess = nearest(str(detail["loc"][-1]), PodSettings.model_fields)
        return f"{where} is not a setting" + (f"; did you mean {guess!r}?" if guess else "")
    return f"{where}: {detail['msg'].removeprefix('Value error, ')}"
