"""`python -m perennial_serving.flattening BUNDLE`: the child process that checks a bundle and flattens its trees.

It ends with 0 and leaves `trees/` in the bundle's folder, with the reason in `trees/done.json` when XGBoost itself must answer; or with
1, and the error as JSON on the last line of its standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from perennial_features.bundle import Bundle
from perennial_serving.loading import TREES
from perennial_spec.errors import PerennialError

_ROWS = 512
"""Random rows that the trees are compared on, beside the holdout."""


def main() -> int:
    """See the module."""
    folder = Path(sys.argv[1])
    try:
        reason = flatten_into(folder / TREES, Bundle.load(folder))
    except PerennialError as error:
        told = {name: getattr(error, name) for name in ("what", "where", "expected", "next")}
        print(json.dumps(told))  # noqa: T201 (the parent reads it)
        return 1
    temporary = folder / TREES / f"done.{os.getpid()}"
    temporary.write_text(json.dumps({"reason": reason}))
    temporary.replace(folder / TREES / "done.json")
    return 0


def flatten_into(folder: Path, bundle: Bundle) -> str:
    """Write the flattened trees of `bundle`. "", or why they would not answer as XGBoost does."""
    from perennial_native.forest import Flat, Forest, Unsupported, agrees, flatten

    booster: Any = bundle.booster
    try:
        flat = flatten(json.loads(bytes(booster.save_raw("json"))))
    except Unsupported as error:
        folder.mkdir(parents=True, exist_ok=True)
        return str(error)
    flat.save(folder)
    forest = Forest(Flat.load(folder))
    for name, matrix in (("the holdout", _holdout(bundle)), ("random rows", _random(bundle))):
        if len(matrix) and (difference := agrees(forest, bundle.booster, matrix)):
            return f"the flattened trees differ on {name}: {difference}"
    return ""


def _holdout(bundle: Bundle) -> Any:
    if bundle.holdout is not None:
        return bundle.holdout.matrix
    return bundle.encode(bundle.columns(bundle.smoke.columns)).matrix if bundle.smoke.predictions else np.empty((0, 0))


def _random(bundle: Bundle) -> Any:
    """Rows that reach every bin, with missing values and categories that training did not see."""
    rng = np.random.default_rng(0)
    columns = []
    for feature, bins in zip(bundle.schema.features, bundle.reference.features, strict=False):
        if feature.kind == "categorical":
            values = rng.integers(0, len(feature.categories) + 2, _ROWS).astype(np.float64)
        else:
            edges = np.array(bins.edges or (0.0,))
            values = rng.choice(edges, _ROWS) + rng.normal(0, float(np.ptp(edges)) / 5 or 1.0, _ROWS)
        columns.append(np.where(rng.random(_ROWS) < 0.1, np.nan, values))
    return np.stack(columns, axis=1).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
