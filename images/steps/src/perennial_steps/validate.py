"""The step `validate`: one version of the data against the spec's expectations and the platform's own checks.

The verdict is kept as a record per data version. The same version with the same expectations is never evaluated twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from perennial_spec.errors import BatchError
from perennial_spec.load import Pipeline
from perennial_spec.step import Verdict
from perennial_spec.validation import FailedCheck, ValidationRecord, local_path, read_record, write_record
from perennial_steps import table
from perennial_steps.context import Outcome, StepContext
from perennial_steps.progress import phase
from perennial_steps.validation_checks import NAMES, own_checks

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_NAMED = 10
"""So many failures are told in the result; the record and the Data Docs have all."""


def run(context: StepContext) -> Outcome:
    """Validate the version that ingest gave.

    Raises:
        SpecError: an expectation does not exist, or does not take its arguments.
        BatchError: there is no such version, or it has no rows.
        PlatformError: the store is away or full.
    """
    pipeline = context.pipeline
    version = int(context.input("ingest", "data_version"))
    store = context.platform.need("store")
    digest = expectations_digest(pipeline)
    known = read_record(store, pipeline.name, version)
    if known and known.expectations_digest == digest:
        log.info("version %d has been validated already, at %s", version, known.at.isoformat(timespec="seconds"))
        return _outcome(known)
    record = _validate(pipeline, context.platform.table(pipeline.name, "data"), version, digest, store)
    with table.store_errors(store):
        write_record(store, record)
    return _outcome(record)


def expectations_digest(pipeline: Pipeline) -> str:
    """SHA-256 over what is checked."""
    spec = pipeline.spec
    parts = {
        "expectations": [expectation.model_dump(mode="json") for expectation in spec.expectations],
        "data": spec.data.model_dump(mode="json", include={"timestamp", "label", "window", "sensitive"}),
        "kind": spec.model.kind,
        "own": NAMES,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _validate(pipeline: Pipeline, uri: str, version: int, digest: str, store: str) -> ValidationRecord:
    with phase(log, f"read the window of version {version}"):
        window, first, last = _window(pipeline, uri, version)
    checks, failed = own_checks(window, pipeline)
    docs_uri = None
    if pipeline.spec.expectations:
        from perennial_steps import validation_gx

        docs = local_path(store) / pipeline.name / "data_docs"
        with (
            phase(log, f"{len(pipeline.spec.expectations)} expectations on {window.num_rows:,} rows"),
            table.store_errors(store),
        ):
            evaluated = validation_gx.evaluate(pipeline, window, version, docs)
        checks, docs_uri = checks + evaluated.checks, evaluated.docs_uri
        failed += evaluated.failed
    stops = tuple(one for one in failed if one.severity == "stop")
    return ValidationRecord(
        pipeline=pipeline.name,
        data_version=version,
        passed=not stops,
        checks=checks,
        failed=stops,
        warnings=tuple(one for one in failed if one.severity == "warn"),
        docs_uri=docs_uri,
        at=datetime.now(UTC),
        expectations_digest=digest,
        rows=window.num_rows,
        labelled=table.count_filled(uri, version, pipeline.spec.data.label.column),
        first=first,
        last=last,
    )


def _window(pipeline: Pipeline, uri: str, version: int) -> tuple[pa.Table, datetime, datetime]:
    import pyarrow.compute as pc

    moment = pipeline.spec.data.timestamp
    last = pc.max(table.read_window(uri, version, moment, columns=[moment]).column(moment)).as_py()
    if last is None:
        raise BatchError(f"version {version} has no rows", where=uri, next="land a batch first")
    window = table.read_window(uri, version, moment, since=last - pipeline.spec.data.window)
    return window, pc.min(window.column(moment)).as_py(), last


def _outcome(record: ValidationRecord) -> Outcome:
    outputs = {
        "data_version": record.data_version,
        "docs_uri": record.docs_uri,
        "checks": record.checks,
        "warnings": [f"{_said(one)}"[:200] for one in record.warnings[:_NAMED]],
    }
    metrics = {"rows": float(record.rows), "checks": float(record.checks), "failed_checks": float(len(record.failed))}
    on = f"of version {record.data_version} ({record.rows:,} rows)"
    for one in record.warnings:
        log.warning("%s", _said(one))
    if record.passed:
        met = record.checks - len(record.warnings)
        warned = f", {len(record.warnings)} with a warning" if record.warnings else ""
        return Outcome(f"{met} of {record.checks} checks {on} hold{warned}", outputs, metrics)
    lines = [_said(one) for one in record.failed[:_NAMED]]
    more = len(record.failed) - len(lines)
    lines += [f"and {more} more"] if more else []
    lines += [f"  docs: {record.docs_uri}"] if record.docs_uri else []
    lines += ["  next: mend the source, or the expectation; nothing is trained on this version"]
    return Outcome(
        f"{len(record.failed)} of {record.checks} checks {on} failed: {_said(record.failed[0])}",
        outputs,
        metrics,
        verdict=Verdict.FAIL,
        failure="\n".join(lines),
    )


def _said(check: FailedCheck) -> str:
    return f"{check.name} on {check.column}: {check.message}" if check.column else f"{check.name}: {check.message}"
