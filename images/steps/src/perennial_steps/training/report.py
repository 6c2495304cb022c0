"""The files of a training run: the model for serving and for MLflow, plots, model card."""

from __future__ import annotations

import json
from pathlib import Path

from perennial_features.reference import describe
from perennial_steps.context import StepContext
from perennial_steps.training.card import CARD, Facts, model_card
from perennial_steps.training.mlmodel import BUNDLE, write_mlmodel
from perennial_steps.training.model import Trained
from perennial_steps.training.plots import draw_importance, draw_quality

MODEL = "model"
"""The model's folder among the artifacts of its run."""


def write_files(folder: Path, trained: Trained, context: StepContext, run_id: str) -> None:
    """Write every artifact of the run below `folder`."""
    trained.bundle.save(folder / MODEL / BUNDLE)
    write_mlmodel(folder / MODEL, trained.bundle.schema, run_id)
    _write_plots(folder / "plots", trained)
    (folder / CARD).write_text(model_card(context.pipeline.spec, _facts(trained, context)))
    (folder / "reference_histograms.json").write_text(json.dumps(describe(trained.bundle.reference), indent=1))
    (folder / "reason.json").write_text(context.request.reason.model_dump_json(indent=1, exclude_none=True))
    if trained.fitted.trials:
        (folder / "trials.json").write_text(json.dumps(trained.fitted.trials, indent=1))


def _write_plots(folder: Path, trained: Trained) -> None:
    holdout = trained.prepared.parts.holdout.rows
    dataset = trained.prepared.dataset
    draw_importance(folder / "importance.png", trained.importance)
    scores = {"model": trained.scores[holdout]}
    draw_quality(folder, trained.bundle.kind, dataset.label[holdout], scores, dataset.group_of(holdout))


def _facts(trained: Trained, context: StepContext) -> Facts:
    meta = trained.bundle.meta
    return Facts(
        run_key=context.request.run_key,
        reason=context.request.reason,
        data_uri=meta["data_uri"],
        data_version=meta["data_version"],
        code_version=meta["code_version"],
        lock_digest=meta["lock_digest"],
        parts=trained.prepared.parts,
        schema=trained.bundle.schema,
        metrics=trained.metrics,
        importance=trained.importance,
        rounds=trained.fitted.rounds,
    )
