"""The files of a new pipeline."""

from __future__ import annotations

from pathlib import Path
from string import Template

from perennial_cli.scaffold.guess import Column, Guess
from perennial_spec.errors import SpecError

_SPEC = Template("""\
# yaml-language-server: $$schema=pipeline.schema.json   (write it with: perennial schema > pipeline.schema.json)
apiVersion: perennial/v1
name: $name
owner: {team: $team, contact: "$team@example.com"}   # who is asked when it breaks

# canvas: what the model is for, in words. `perennial check` warns until it is there; see flight-delays for an example.

data:
  sources:
    $source: "$location"
  timestamp: $timestamp        # when a row was known; rows are windowed and split by it
  entity: $entity              # predictions and late labels are joined on it
  label: {column: $label, arrives_after: 1d}
  window: 365d                 # a model is trained on this much of the newest data
  exclude: []                  # columns that are only known later: they never reach the model
  sensitive: []                # never a feature, kept for slices

expectations:                  # Great Expectations, by their own names
  - expect_column_values_to_not_be_null: {column: $label, mostly: 0.5}
  - expect_table_row_count_to_be_between: {min_value: 100}

model:
  kind: $kind
  features: features.py:features
  params: {max_depth: 6, learning_rate: 0.1}
  split: {holdout: 14d, validation: 7d}

evaluation:
  metric: $metric
  gates:
    - {metric: $metric, $bound}
    - {against: champion, min_gain: 0.0, confidence: 0.95}

deployment: {strategy: canary, steps: [10%, 50%, 100%], bake: 10m}
monitoring:
  drift: {psi: 0.2, window: 1h, min_rows: 500}
retraining:
  on: [drift]
  cooldown: 6h
""")

_FEATURES = Template('''\
"""Features of $name: columns in, columns out, plain numpy. The same code runs in training and in the model server."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def features(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Numbers as they are; text becomes a category; a timestamp is best cut into parts such as the hour."""
    return {
$lines
    }
''')

_README = Template("""\
# $name

What it predicts: `$label`, for each `$entity`.

    perennial check $name     # the spec, the features, the expectations, that the sources answer
    perennial run $name       # train, evaluate, deploy
""")


def write_pipeline(folder: Path, name: str, location: str, guessed: Guess) -> list[Path]:
    """Write a new pipeline's folder.

    Raises:
        SpecError: it is there already; nothing is overwritten.
    """
    if folder.exists():
        raise SpecError(
            "the folder is there already", where=str(folder), expected="a new name", next=f"perennial check {name}"
        )
    classifier = guessed.kind == "xgboost.classifier"
    values = {
        "name": name,
        "team": "my-team",
        "source": name.replace("-", "_"),
        "location": location,
        "timestamp": guessed.timestamp,
        "entity": guessed.entity,
        "label": guessed.label,
        "kind": guessed.kind,
        "metric": "roc_auc" if classifier else "rmse",
        "bound": "min: 0.6" if classifier else "max: 1.0e+9",
        "lines": "\n".join(f'        "{c.name}": columns["{c.name}"],{_remark(c)}' for c in guessed.inputs),
    }
    folder.mkdir(parents=True)
    files = {"pipeline.yaml": _SPEC, "features.py": _FEATURES, "README.md": _README}
    for file, template in files.items():
        (folder / file).write_text(template.substitute(values))
    return [folder / file for file in files]


def _remark(column: Column) -> str:
    if column.is_number:
        return ""
    return f"  # a category, {column.distinct} values" if column.type == "VARCHAR" else f"  # {column.type.lower()}"
