"""The record that a version of a pipeline's data was validated: what the controller asks before it starts a training.

One JSON file per data version, `<store>/<pipeline>/validation/<data_version>.json`, written whole or not at all.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field, ValidationError

from perennial_spec.base import Model
from perennial_spec.errors import DataError, PlatformError


class FailedCheck(Model):
    """An expectation, or a check of the platform's own, that the data does not meet."""

    name: str
    """`expect_column_values_to_be_between`, or `perennial_...` for the platform's own."""
    column: str | None = None
    severity: str = "stop"
    message: str = Field(max_length=1000)
    """What was expected and what was observed, in words and figures."""


class ValidationRecord(Model):
    """What a validation of one data version came to."""

    pipeline: str
    data_version: int = Field(ge=0)
    passed: bool
    """No check of severity `stop` failed."""
    checks: int = Field(ge=0)
    """How many expectations and checks were evaluated."""
    failed: tuple[FailedCheck, ...] = ()
    """Of severity `stop`."""
    warnings: tuple[FailedCheck, ...] = ()
    docs_uri: str | None = None
    """Great Expectations' Data Docs of this validation."""
    at: datetime
    """When it was validated, UTC."""
    expectations_digest: str
    """SHA-256 over what was checked: the same version is validated again only when this changes."""
    rows: int = Field(ge=0)
    """Rows that were looked at: those in the pipeline's window."""
    labelled: int | None = Field(default=None, ge=0)
    """Rows of the whole table that have a label; None where it was not counted."""
    first: datetime | None = None
    last: datetime | None = None
    """Timestamps of the oldest and newest row that were looked at, UTC."""


def folder_of(store: str, pipeline: str) -> Path:
    """The local folder with the validation records of a pipeline.

    Raises:
        PlatformError: the store is not a local folder.
    """
    return local_path(store) / pipeline / "validation"


def local_path(store: str) -> Path:
    """A store given as a path or as `file://...`, as a path.

    Raises:
        PlatformError: it is a URI of another scheme.
    """
    parts = urlsplit(store)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme:
        raise PlatformError(
            f"validation records cannot be kept at {parts.scheme}://",
            where="PERENNIAL_STORE",
            expected="a folder or a file:// URI (a shared volume on Kubernetes)",
        )
    return Path(store)


def read_record(store: str, pipeline: str, data_version: int) -> ValidationRecord | None:
    """The record of one version, or None when that version was never validated.

    Raises:
        DataError: the record is there and cannot be read.
    """
    file = folder_of(store, pipeline) / f"{data_version}.json"
    try:
        return ValidationRecord.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"not a validation record: {'.'.join(map(str, first['loc']))} {first['msg']}",
            where=str(file),
            next=f"remove the file and run: perennial step validate {pipeline}",
        ) from None


def write_record(store: str, record: ValidationRecord) -> Path:
    """Keep a record: a reader sees the whole of it or none of it, also when the process is killed meanwhile."""
    folder = folder_of(store, record.pipeline)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{record.data_version}.json"
    draft = folder / f".{record.data_version}.{os.getpid()}.draft"
    try:
        with draft.open("w", encoding="utf-8") as out:
            out.write(record.model_dump_json(indent=2))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return file


def records(store: str, pipeline: str) -> list[int]:
    """The data versions that have a record, newest first."""
    folder = folder_of(store, pipeline)
    if not folder.is_dir():
        return []
    return sorted((int(file.stem) for file in folder.glob("*.json") if file.stem.isdecimal()), reverse=True)


def latest_passed(store: str, pipeline: str) -> ValidationRecord | None:
    """The newest data version that passed validation, or None when none has."""
    for version in records(store, pipeline):
        record = read_record(store, pipeline, version)
        if record and record.passed:
            return record
    return None
