"""Both models on the same later flights, which neither was trained on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from perennial_cli.demo.script import Script
from perennial_cli.demo.world import World
from perennial_cli.replay.load import load_events
from perennial_spec.load import Pipeline
from perennial_spec.platform import Platform


def auc_on_later_flights(
    pipeline: Pipeline, platform: Platform, world: World, script: Script, versions: tuple[str, ...]
) -> dict[str, float]:
    """ROC AUC by model version, on the flights of `script.after` that have a label."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from perennial_features.bundle import Bundle
    from perennial_features.request import columns_from_rows
    from perennial_steps.registry import Registry

    start, end = script.after
    events = [event for event in load_events(pipeline, world.year, start=start, end=end) if event.label is not None]
    rows, labels = [event.inputs for event in events], np.array([event.label for event in events])
    scores: dict[str, float] = {}
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            registry = Registry(platform.need("mlflow_url"))
            bundle = Bundle.load(registry.download_bundle(pipeline.name, version, Path(folder)))
            columns = columns_from_rows(rows, bundle.schema)
            scores[version] = float(roc_auc_score(labels, bundle.predict(columns)))
    return scores
