"""NannyML's CBPE on the weeks that ours estimates: `cbpe.py weeks.parquet` prints week to ROC AUC as JSON.

`fixed` takes week 0 as its reference throughout, as NannyML is used; `rolling` takes the week before.
"""

from __future__ import annotations

import json
import sys
import warnings
from itertools import pairwise

import pandas as pd

warnings.filterwarnings("ignore")
import nannyml as nml  # type: ignore[import-not-found]  # noqa: E402

nml.disable_usage_logging()


def estimated(reference: pd.DataFrame, analysis: pd.DataFrame) -> dict[int, float]:
    """The estimate of each week of `analysis`."""
    found = {}
    estimator = nml.CBPE(
        y_pred_proba="score",
        y_pred="predicted",
        y_true="label",
        problem_type="classification_binary",
        metrics=["roc_auc"],
        chunk_number=1,
    )
    estimator.fit(reference)
    for week in analysis["week"].unique():
        rows = analysis[analysis["week"] == week]
        result = estimator.estimate(rows.drop(columns="label")).filter(period="analysis").to_df()
        found[int(week)] = float(result[("roc_auc", "value")].iloc[0])
    return found


frame = pd.read_parquet(sys.argv[1])
frame["predicted"] = (frame["score"] > 0.5).astype(int)
weeks = sorted(frame["week"].unique())
print(
    json.dumps(
        {
            "fixed": estimated(frame[frame["week"] == 0], frame[frame["week"] > 0]),
            "rolling": {
                int(week): value
                for before, week in pairwise(weeks)
                for value in estimated(frame[frame["week"] == before], frame[frame["week"] == week]).values()
            },
        }
    )
)
