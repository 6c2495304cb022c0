"""The pipeline of the measurements of cost: a window of a week, and one slice."""

from __future__ import annotations

from pathlib import Path

PIPELINE = "bench"
SPEC = f"""\
apiVersion: perennial/v1
name: {PIPELINE}
owner: {{team: bench, contact: bench@example.com}}
data: {{sources: {{rows: rows.parquet}}, timestamp: at, entity: id, label: {{column: late, arrives_after: 6h}}}}
model: {{kind: xgboost.classifier}}
evaluation: {{metric: roc_auc, gates: [{{metric: roc_auc, min: 0.6}}]}}
monitoring: {{quality: {{metric: roc_auc, min: 0.6, window: 7d, slices: [origin]}}}}
"""


def write(folder: Path) -> Path:
    """The folder of pipelines, made."""
    place = folder / PIPELINE
    place.mkdir(parents=True)
    (place / "features.py").write_text("def features(columns):\n    return dict(columns)\n")
    (place / "pipeline.yaml").write_text(SPEC)
    return folder
