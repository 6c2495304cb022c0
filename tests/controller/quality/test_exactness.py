"""Whatever comes in whatever order, live quality is what SQL and scikit-learn make of the raw tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from perennial_spec import logs as log_names

JOINED = """
WITH prediction AS (
    SELECT DISTINCT ON (version, prediction_id) * FROM predictions
    WHERE "at" > $cutoff AND "at" <= $latest AND isfinite(score) AND score BETWEEN 0 AND 1
),
newest AS (
    SELECT version, arg_max(prediction_id, "at") AS prediction_id, entity FROM prediction
    WHERE entity IS NOT NULL GROUP BY version, entity
),
good AS (SELECT * FROM labels WHERE label IN (0, 1) AND "at" <= $latest),
own AS (SELECT prediction_id, arg_max(label, "at") AS label FROM good WHERE prediction_id IS NOT NULL GROUP BY 1),
theirs AS (SELECT entity, arg_max(label, "at") AS label FROM good WHERE prediction_id IS NULL GROUP BY 1)
SELECT
    p.version, p.score, coalesce(o.label, t.label) AS label,
    coalesce(nullif(json_extract_string(p.inputs, '$.origin'), ''), 'missing') AS origin
FROM prediction p
LEFT JOIN own o USING (prediction_id)
LEFT JOIN newest n USING (version, prediction_id)
LEFT JOIN theirs t ON n.entity = t.entity
WHERE o.label IS NOT NULL OR n.entity IS NOT NULL
   OR (p.entity IS NULL AND EXISTS (FROM own))
"""
scores = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, -0.5, float("nan"), float("inf"), None]))
entities = st.one_of(st.none(), st.sampled_from([f"e{n}" for n in range(12)]))
minutes = st.sampled_from([-120, -30, 0, 5, 20, 59, 61, 90, 60 * 24 * 365 * 80])
origins = st.one_of(st.sampled_from(["EWR", "JFK", "", None]), st.integers(0, 30))


@dataclass(frozen=True)
class Step:
    """Predictions (entity, version, score, minutes ago, origin) and labels (entity or None: of which prediction; value; minutes ago)."""

    predictions: list[tuple[str | None, str, float | None, int, Any]]
    labels: list[tuple[str | None, int, float | None, int]]
    look: bool


steps = st.builds(
    Step,
    st.lists(st.tuples(entities, st.sampled_from("12"), scores, minutes, origins), max_size=25),
    st.lists(
        st.tuples(entities, st.integers(0, 99), st.sampled_from([0.0, 1.0, 1.0, 7.0, float("nan"), None]), minutes),
        max_size=15,
    ),
    st.booleans(),
)


def truth(logs: Any) -> Any:
    """The joined rows as a data frame."""
    with duckdb.connect() as connection:
        for name in (log_names.PREDICTIONS, log_names.LABELS):
            uri = logs.uri(name)
            if not DeltaTable.is_deltatable(uri):
                return None
            connection.register(name, DeltaTable(uri).to_pyarrow_table())
        values = {"cutoff": logs.now - timedelta(hours=1), "latest": logs.now + timedelta(hours=1)}
        return connection.execute(JOINED, values).df()


def expected(rows: Any) -> dict[str, float]:
    y, p = rows["label"].to_numpy(float), rows["score"].to_numpy(float)
    found = {"brier": float(np.mean((p - y) ** 2)), "log_loss": sk.log_loss(y, p, labels=[0, 1])}
    place = np.digitize(p, np.arange(1, 15) / 15, right=True)
    found["calibration_error"] = sum(abs((y - p)[place == n].sum()) for n in range(15)) / len(p)
    if 0 < y.sum() < len(y):
        found["roc_auc"] = sk.roc_auc_score(y, p)
    return found


def agree(logs: Any, exporter: Any) -> None:
    rows, found = truth(logs), logs.exported(exporter)
    if rows is None:
        return
    assert {key[0] for key in found.get("perennial_quality_labels", {})} == set(rows["version"])
    for version, of in rows.groupby("version"):
        known = of.dropna(subset="label")
        assert found["perennial_quality_labels"][version,] == len(known)
        assert found["perennial_quality_labelled_share"][version,] == pytest.approx(len(known) / len(of))
        mine = {key[1]: value for key, value in found.get("perennial_quality", {}).items() if key[0] == version}
        assert mine == pytest.approx(expected(known) if len(known) else {}, rel=1e-9, abs=1e-12)
        labels = {k[2]: v for k, v in found.get("perennial_quality_slice_labels", {}).items() if k[0] == version}
        assert sum(labels.values()) == len(known)
        assert len(labels) <= 22
        for value in set(labels) - {"other"}:
            part = known[known["origin"] == value]
            assert labels[value] == len(part)
            sliced = found["perennial_quality_slice"].items()
            mine = {key[1]: number for key, number in sliced if (key[0], *key[2:]) == (version, "origin", value)}
            assert mine == pytest.approx(expected(part), rel=1e-9, abs=1e-12)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(sequence=st.lists(steps, min_size=2, max_size=6), compact=st.booleans())
def test_it_is_what_the_raw_tables_say(
    make_logs: Any, prediction: Any, label: Any, sequence: list[Step], compact: bool
) -> None:
    with TemporaryDirectory() as folder:
        logs = make_logs(Path(folder), datetime.now(UTC))
        logs.spec(slices="origin")
        exporter, tick = logs.exporter(), 0

        def at(ago: int) -> datetime:
            """Of the same minute, never the same moment."""
            nonlocal tick
            tick += 1
            return logs.now - timedelta(minutes=ago) + timedelta(milliseconds=tick)

        for step in sequence:
            if step.predictions:
                logs.predict(
                    prediction(entity, version, score, at(ago), inputs=json.dumps({"origin": origin}))
                    for entity, version, score, ago, origin in step.predictions
                )
            ids = [row.id for row in logs.predictions]
            labels = [
                label(entity, value, at(ago), None if entity else ids[place % len(ids)])
                for entity, place, value, ago in step.labels
                if entity or ids
            ]
            if labels:
                logs.label(labels)
            if step.look:
                agree(logs, exporter)
        agree(logs, exporter)
        if compact and logs.predictions and logs.labels:
            logs.compact()
        agree(logs, logs.exporter())  # a restart
        logs.now += timedelta(minutes=15)  # rows leave the window, and some of the future come into it
        logs.predict([prediction("e1", "1", 0.5, at(1), inputs='{"origin": "JFK"}')])
        agree(logs, logs.exporter())
