"""A version from a folder to something that answers.

A model of any MLflow flavour answers in processes of its own; see `model_process`. Of a bundle, a child process does what is slow and
large: it loads the model with XGBoost, asks the smoke questions, flattens the trees, and compares both on the holdout. The server takes
over arrays from disk. So a load stalls no answer, and the server itself never imports XGBoost, unless a model cannot be flattened soundly:
then XGBoost itself answers.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perennial_features.bundle import Bundle
from perennial_features.reference import Reference
from perennial_serving.counting import VersionCounters
from perennial_serving.intake import Intake
from perennial_serving.log_entries import logged_columns, share_of
from perennial_serving.model import LoadedModel
from perennial_serving.processes import Processes
from perennial_serving.pyfunc import is_mlflow_model, load_pyfunc
from perennial_serving.question import Question
from perennial_serving.registered import identity
from perennial_serving.sample import Sample
from perennial_serving.scorer import Scorer
from perennial_serving.settings import Settings
from perennial_spec.errors import ModelError

log = logging.getLogger(__name__)
_WARM_UP = 3
_INTAKE_ROWS = 1024
_NO_BINS = Reference(features=(), rows=0)
TREES = "trees"
"""Folder of the flattened trees, in the bundle's cached folder."""


@dataclass(frozen=True)
class Fetched:
    """A version whose files are here."""

    pipeline: str
    version: str
    uri: str
    folder: Path
    trained: float = 0.0
    """When it was registered: seconds since 1970; 0: not known."""


def load_model(fetched: Fetched, settings: Settings, processes: Processes) -> LoadedModel:
    """Load a bundle, or a model of any MLflow flavour, and warm it. Not on the event loop.

    Raises:
        ModelError: it is damaged, or does not answer as it did in training.
    """
    if is_mlflow_model(fetched.folder):
        return _load_process(fetched, settings, processes)
    return _load_bundle(fetched, settings)


def _load_process(fetched: Fetched, settings: Settings, processes: Processes) -> LoadedModel:
    process = load_pyfunc(fetched.folder, settings)
    known = identity(process.schema, fetched.folder)
    processes.start(process)
    return LoadedModel(
        pipeline=fetched.pipeline,
        version=fetched.version,
        schema=process.schema,
        reference=_NO_BINS,
        counters=VersionCounters(_NO_BINS),
        entity=known.entity,
        entity_redacted=known.entity_redacted,
        logged=known.logged,
        log_share=known.log_share,
        scorer=None,
        process=process,
        outputs=process.outputs,
        text=process.text,
        uri=fetched.uri,
        folder=fetched.folder,
        trained=fetched.trained,
        question=process.question,
    )


def _load_bundle(fetched: Fetched, settings: Settings) -> LoadedModel:
    pipeline, version, folder = fetched.pipeline, fetched.version, fetched.folder
    reason = _prepare(folder, settings.load_timeout_seconds)
    if reason:
        log.warning("version %s of %s is answered by XGBoost itself, more slowly: %s", version, pipeline, reason)
    bundle = Bundle.load(folder) if reason else Bundle.load(folder, open_model=_open_trees)
    data = bundle.spec.get("data")
    if not isinstance(data, dict) or not data.get("entity"):
        raise ModelError("the bundle's spec names no entity", where=str(folder), next="train again")
    logged = logged_columns(bundle.schema, data)
    outputs = _outputs(bundle)
    model = LoadedModel(
        pipeline=pipeline,
        version=version,
        schema=bundle.schema,
        reference=bundle.reference,
        counters=VersionCounters(bundle.reference),
        entity=data["entity"],
        entity_redacted=data["entity"] in data.get("redact", {}),
        logged=logged,
        log_share=share_of(bundle.spec),
        scorer=Scorer(bundle, _sample(bundle, settings)),
        # The short way writes one number per row.
        intake=Intake(bundle.schema, data["entity"], logged, _INTAKE_ROWS) if outputs == 1 else None,
        outputs=outputs,
        uri=fetched.uri,
        folder=folder,
        trained=fetched.trained,
        question=Question.of(bundle),
    )
    _warm(model, bundle)
    return model


def _sample(bundle: Bundle, settings: Settings) -> Sample | None:
    """Of rows to be explained, where there is something to compare with."""
    if not settings.attribution_rows or bundle.reference.attribution is None:
        return None
    return Sample(settings.attribution_rows, len(bundle.schema.features))


def _outputs(bundle: Bundle) -> int:
    """Values per row: classes, where the model gives a probability to each."""
    scores = bundle.predict_encoded(np.zeros((1, len(bundle.schema.features)), dtype=np.float32))
    return int(scores.size)


class _Trees:
    """Flattened trees where a bundle expects a booster."""

    def __init__(self, folder: Path) -> None:
        from perennial_native.forest import Flat, Forest

        self.inplace_predict = Forest(Flat.load(folder)).predict


def _open_trees(file: str, threads: int) -> Any:
    return _Trees(Path(file).parent / TREES)


def _prepare(folder: Path, timeout: float) -> str:
    """Have a child process check the bundle and flatten its trees. "", or why XGBoost itself must answer."""
    done = folder / TREES / "done.json"
    if not done.is_file():
        command = [sys.executable, "-m", "perennial_serving.flattening", str(folder)]
        try:
            child = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"loading takes longer than {timeout:g} s", where=str(folder)) from None
        if child.returncode:
            raise _failure(folder, child)
    found: dict[str, str] = json.loads(done.read_text())
    return found["reason"]


def _failure(folder: Path, child: subprocess.CompletedProcess[str]) -> ModelError:
    try:
        told = json.loads(child.stdout.splitlines()[-1])
        return ModelError(**{name: str(told[name]) for name in ("what", "where", "expected", "next")})
    except (IndexError, ValueError, KeyError, TypeError):
        last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        return ModelError(f"the process that loads models ended: {last[0][:200]}", where=str(folder))


def _warm(model: LoadedModel, bundle: Bundle) -> None:
    """The first prediction builds tables and views; no client should wait for that."""
    assert model.scorer is not None
    smoke = bundle.smoke
    if not smoke.predictions:
        return
    first = {name: list(values[:1]) for name, values in smoke.columns.items()}
    for _ in range(_WARM_UP):
        if model.intake is not None and model.intake.columns(first, 1, 0):
            model.scorer.predict(model.scorer.matrix(model.intake.typed(1), 1))
        bundle.predict(bundle.columns(first))
