"""The training step: one version of the data in, one registered model version out.

What is read, which rows are used and how they are divided is `training.dataset`; fitting is `training.fit`. Everything is written to an
MLflow run first. The model version is registered last, in one call: killed at any point before, there is no version, and the next
attempt starts anew; after it, the next attempt finds the version by its run key and returns what this one returned.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from perennial_features.code import FeatureCode, load_features
from perennial_registry import verdicts
from perennial_registry.registry import ModelVersion, Registry
from perennial_spec import names
from perennial_steps.context import Outcome, StepContext
from perennial_steps.progress import phase
from perennial_steps.training.dataset import assemble, divide
from perennial_steps.training.fit import Material, check_names, fit
from perennial_steps.training.model import Trained, measured
from perennial_steps.training.prepare import prepare
from perennial_steps.training.report import write_files
from perennial_steps.training.table import read_window
from perennial_steps.training.tracking import Run, Tracking, TrackingRest, recorded
from perennial_steps.training.versions import code_version, lock_digest

log = logging.getLogger(__name__)

TAG_OUTPUTS = "perennial.train_outputs"
"""On the model version: what the step returned, so that a repeat returns the same."""


def run(context: StepContext) -> Outcome:
    """Train, log and register.

    Raises:
        SpecError: model.params.
        FeatureError: the pipeline's feature code.
        BatchError: the data cannot be trained on.
        PlatformError, RegistryError: the store or MLflow does not answer.
    """
    spec = context.pipeline.spec
    url = context.platform.need("mlflow_url")
    with Registry(url) as registry:
        if found := registry.find_by_run_key(spec.name, context.request.run_key):
            return _again(found)
        check_names(spec.model)
        code = load_features(context.pipeline.features_file, context.pipeline.features_function)
        rest = TrackingRest(url)
        try:
            with recorded(Tracking(rest, spec.name), context.request.run_key, _tags(context)) as made:
                trained = train(context, code)
                version_tags = _log(Tracking(rest, spec.name), made, trained, context)
        finally:
            rest.close()
        with phase(log, "registered"):
            version = registry.register(
                spec.name,
                run_id=made.id,
                source=f"{made.artifact_uri}/model",
                run_key=context.request.run_key,
                tags=version_tags,
            )
    if version.run_id != made.id:  # another attempt was faster
        return _again(version)
    return _outcome(version.version, json.loads(version_tags[TAG_OUTPUTS]), trained.metrics)


def train(context: StepContext, code: FeatureCode) -> Trained:
    """Everything but MLflow: read, prepare, fit, measure."""
    spec = context.pipeline.spec
    uri, version = str(context.input("ingest", "data_uri")), int(context.input("ingest", "data_version"))
    with phase(log, f"read {uri} version {version}"):
        table = read_window(uri, version, spec.data, spec.model.group)
        dataset = assemble(table, spec.data, spec.model.kind, spec.model.group)
    parts = divide(dataset, spec.model.split, spec.model.kind)
    with phase(log, f"made features of {len(dataset):,} rows"):
        prepared = prepare(dataset, parts, code)
    material = Material(
        matrix=prepared.encoded.matrix,
        label=dataset.label,
        schema=prepared.schema,
        parts=parts,
        metric=spec.evaluation.metric,
        threads=_threads(context),
        group=dataset.group,
    )
    with phase(log, f"fitted {len(prepared.schema.features)} features on {parts.train.count:,} rows"):
        fitted = fit(material, spec.model)
    return measured(spec, code, prepared, fitted, _meta(context))


def _log(tracking: Tracking, made: Run, trained: Trained, context: StepContext) -> dict[str, str]:
    """Write the run; the tags of the version to be registered."""
    meta = trained.bundle.meta
    with phase(log, "logged to MLflow"), tempfile.TemporaryDirectory(prefix="perennial-train-") as folder:
        write_files(Path(folder), trained, context, made.id)
        tracking.log(made, _params(trained), trained.metrics)
        tracking.upload(made, Path(folder))
    holdout = trained.prepared.parts.holdout
    outputs = {
        "run_id": made.id,
        "train_rows": trained.prepared.parts.train.count,
        "holdout": {"from": holdout.first, "to": holdout.last, "rows": holdout.count},
    }
    return {
        names.TAG_STEP: "train",
        names.TAG_REASON: context.request.reason.model_dump_json(exclude_none=True),
        names.TAG_SPEC_DIGEST: context.pipeline.digest,
        names.TAG_DATA_URI: meta["data_uri"],
        names.TAG_DATA_VERSION: str(meta["data_version"]),
        names.TAG_CODE_VERSION: meta["code_version"],
        names.TAG_LOCK_DIGEST: meta["lock_digest"],
        names.TAG_BUNDLE_URI: f"{made.artifact_uri}/model/bundle",
        names.TAG_VERDICT: verdicts.REGISTERED,
        TAG_OUTPUTS: json.dumps(outputs),
    }


def _params(trained: Trained) -> dict[str, Any]:
    parts = trained.prepared.parts
    rows = {f"rows.{part.name}": part.count for part in (parts.train, parts.validation, parts.holdout)}
    meta = {name: trained.bundle.meta[name] for name in ("data_version", "code_version", "lock_digest")}
    return {
        **trained.fitted.params,
        "rounds": trained.fitted.rounds,
        "features": len(trained.prepared.schema.features),
        **rows,
        **meta,
    }


def _meta(context: StepContext) -> dict[str, Any]:
    return {
        "pipeline": context.pipeline.name,
        "run_key": context.request.run_key,
        "spec_digest": context.pipeline.digest,
        "data_uri": str(context.input("ingest", "data_uri")),
        "data_version": int(context.input("ingest", "data_version")),
        "code_version": code_version(context.pipeline.folder),
        "lock_digest": lock_digest(),
        "reason": context.request.reason.model_dump(exclude_none=True),
    }


def _tags(context: StepContext) -> dict[str, str]:
    """Of the MLflow run."""
    return {
        names.TAG_RUN_KEY: context.request.run_key,
        names.TAG_STEP: "train",
        names.TAG_REASON: context.request.reason.model_dump_json(exclude_none=True),
        names.TAG_SPEC_DIGEST: context.pipeline.digest,
        names.TAG_DATA_URI: str(context.input("ingest", "data_uri")),
        names.TAG_DATA_VERSION: str(context.input("ingest", "data_version")),
        "mlflow.note.content": context.request.reason.summary,
        "mlflow.source.name": "perennial train",
        "mlflow.user": context.pipeline.spec.owner.team,
    }


def _threads(context: StepContext) -> int:
    wanted = math.ceil(context.pipeline.spec.step_resources("train").cpu)
    return max(1, min(wanted, os.cpu_count() or 1))


def _again(version: ModelVersion) -> Outcome:
    log.info("version %s has this run key already: nothing to do", version.version)
    return _outcome(version.version, json.loads(version.tags.get(TAG_OUTPUTS, "{}")), {})


def _outcome(version: str, outputs: dict[str, Any], metrics: dict[str, float]) -> Outcome:
    holdout = outputs.get("holdout", {})
    summary = f"version {version}, trained on {outputs.get('train_rows', 0):,} rows"
    summary += "".join(
        f", {name.split('/')[1]} {value:.4f}" for name, value in list(metrics.items()) if name.startswith("holdout/")
    )
    summary += f", on {holdout.get('rows', 0):,} held-out rows"
    return Outcome(summary=summary, outputs={**outputs, "model_version": version}, metrics=metrics)
