"""Both models on the same later flights, which neither was trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from perennial_cli.replay.plan import Event
from perennial_spec.platform import Platform


def auc_on_later_flights(
    pipeline: str, platform: Platform, events: Sequence[Event], versions: tuple[str, ...]
) -> dict[str, float]:
    """ROC AUC by model version, on those of `events` that have a label; scored here, with the bundles from the registry."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from perennial_features.bundle import Bundle
    from perennial_features.request import columns_from_rows
    from perennial_registry.registry import Registry

    labelled = [event for event in events if event.label is not None]
    rows, labels = [event.inputs for event in labelled], np.array([event.label for event in labelled])
    registry = Registry(platform.need("mlflow_url"))
    schema, columns, scores = None, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for version in versions:
            bundle = Bundle.load(registry.download_bundle(pipeline, version, Path(folder)))
            if bundle.schema.inputs != schema:  # two versions of one pipeline read the same columns as a rule
                schema, columns = bundle.schema.inputs, columns_from_rows(rows, bundle.schema)
            scores[version] = float(roc_auc_score(labels, bundle.predict(columns)))
    return scores
