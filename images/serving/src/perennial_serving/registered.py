"""A version that MLflow itself has logged: where its files are, and what its rows are joined and logged by.

A bundle carries its pipeline's spec. Such a model has no spec: tags of the version, or of its registered model, say what is to be known,
and are noted beside the files when these are fetched, so that a restart needs no registry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial_features.schema import FeatureSchema
from perennial_serving.log_entries import logged_columns, share_of
from perennial_spec import names
from perennial_spec.errors import ModelError, RegistryError

_SCHEME = "mlflow-artifacts:/"
_NOTED = "perennial.json"
"""In the model's cached folder: its tags."""
_CREATED = "perennial.created"
"""Likewise: when it was registered, in seconds."""

Get = Callable[[str, dict[str, str]], dict[str, Any]]
"""(path below /api/2.0, parameters) to the registry's answer."""


@dataclass(frozen=True)
class Identity:
    """What a version's rows are assigned, joined and logged by."""

    entity: str
    """A column; empty where there is none: such rows are assigned by chance."""
    entity_redacted: bool
    logged: tuple[str, ...]
    """Columns that the prediction log may hold."""
    log_share: float = 1.0


def model_uri(version: Mapping[str, Any], get: Get) -> str:
    """Where the files of a version are, as `Registry.download` takes it.

    MLflow 3 registers `models:/m-<id>`, which names no place: the server is asked for it, as MLflow's own client does.

    Args:
        version: `model_version` of `model-versions/get`.
        get: how to ask the registry; called only when the version does not say it itself.

    Raises:
        RegistryError: the registry is away.
        ModelError: the files are where this server cannot fetch them.
    """
    source = str(version.get("source", ""))
    if not source.startswith(_SCHEME):
        asked = {"name": str(version.get("name", "")), "version": str(version.get("version", ""))}
        source = str(get("mlflow/model-versions/get-download-uri", asked).get("artifact_uri", ""))
    if not source.startswith(_SCHEME):
        raise ModelError(
            f"version {version.get('version')} of {version.get('name')} is stored at {source.partition(':')[0][:20]}:...",
            expected=f"files behind the MLflow server ({_SCHEME}...)",
            next="run the MLflow server with --serve-artifacts, and log the model again",
        )
    return source


def note_tags(folder: Path, ask: Callable[[], Mapping[str, str]]) -> None:
    """Ask for a version's tags and keep them beside its files, once.

    Raises:
        RegistryError: it is away.
    """
    file = folder / _NOTED
    if file.is_file():
        return
    tags = ask()
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps({tag: tags[tag] for tag in (names.TAG_SPEC, names.TAG_ENTITY) if tags.get(tag)}))
    temporary.replace(file)


def created(folder: Path, ask: Callable[[], float]) -> float:
    """When a version was registered: seconds since 1970; 0: not known. Asked for once, and kept beside its files."""
    file = folder / _CREATED
    with suppress(OSError, ValueError):
        return float(file.read_text())
    try:
        found = ask()
    except RegistryError:  # it is asked again at the next start: nobody waits for this figure
        return 0.0
    temporary = file.with_suffix(".tmp")
    temporary.write_text(repr(found))
    temporary.replace(file)
    return found


def identity(schema: FeatureSchema, folder: Path) -> Identity:
    """Entity and logged columns, by the tags that were noted in `folder`: those of the spec if there is one, else the entity's name.

    Raises:
        ModelError: the tag with the spec is not the JSON of a spec.
    """
    file = folder / _NOTED
    tags: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}
    if names.TAG_SPEC not in tags:
        return Identity(tags.get(names.TAG_ENTITY, ""), False, logged_columns(schema, {}))
    spec = _spec_of(tags[names.TAG_SPEC])
    data = spec["data"]
    redacted = data["entity"] in (data.get("redact") or {})
    return Identity(str(data["entity"]), redacted, logged_columns(schema, data), share_of(spec))


def _spec_of(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
        sound = isinstance(found["data"], dict) and bool(found["data"]["entity"])
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        raise ModelError(
            f"the tag {names.TAG_SPEC} is not a pipeline's spec",
            expected="the spec as JSON, with data.entity",
            next=f"set the tag anew, or remove it and name the entity's column in {names.TAG_ENTITY}",
        )
    return found
