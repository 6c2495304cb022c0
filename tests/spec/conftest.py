from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: ops, contact: ops@example.com}}
data:
  sources: {{trips: "trips/*.parquet"}}
  timestamp: at
  entity: trip_id
  label: {{column: late, arrives_after: 6h}}
model:
  kind: xgboost.classifier
evaluation:
  metric: roc_auc
  gates:
    - {{metric: roc_auc, min: 0.7}}
"""

Write = Callable[..., Path]


@pytest.fixture
def write_pipeline(tmp_path: Path) -> Write:
    """Writes a pipeline's folder below tmp_path: `write_pipeline("demo", text=..., folder=...)`."""

    def write(name: str = "demo", *, text: str | None = None, folder: str | None = None) -> Path:
        target = tmp_path / (folder or name)
        target.mkdir()
        (target / "pipeline.yaml").write_text(GOOD.format(name=name) if text is None else text)
        (target / "features.py").write_text("def features(columns):\n    return {'x': columns['x']}\n")
        return target

    return write


@pytest.fixture
def good_text() -> str:
    return GOOD.format(name="demo")
