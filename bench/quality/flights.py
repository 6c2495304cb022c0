"""Real flights: a model of the first quarter, and every later week's quality, estimated before the labels come and measured after."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from bench.quality.logs import Logs

from perennial_cli.demo.world import World
from perennial_controller.quality.exporter import Exporter
from perennial_controller.specs import Specs
from perennial_features.code import load_features
from perennial_features.encode import encode_all
from perennial_features.engine import load_xgboost
from perennial_features.schema import infer
from perennial_spec import names
from perennial_spec.load import load_pipeline
from perennial_steps.training.dataset import Dataset, assemble

ROOT = Path(__file__).parents[2] / "dags" / "pipelines" / "flight-delays"
PEERS = Path(__file__).parent / "peers"
FIRST = datetime(2013, 4, 1, tzinfo=UTC)
"""A Monday; the model knows nothing after the last of March."""
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Week:
    """One week of flights: the truth, and what was thought of it before."""

    begins: datetime
    flights: int
    true: dict[str, float]
    ours: dict[str, float]
    """Estimated when none of the week's labels had come, calibrated on those of the week before."""
    nannyml: float | None
    """ROC AUC by its CBPE, with the last week of March as its reference throughout."""
    nannyml_rolling: float | None
    """The same, fitted anew to the week before: to what ours is calibrated by."""


def run(work: Path, weeks: int) -> list[Week]:
    """Takes a few minutes: joins the year's flights, trains, and follows them week by week."""
    data = _dataset(work)
    scores = _scores(data)
    begins = [FIRST + WEEK * number for number in range(-1, weeks)]
    of = [_between(data, at, at + WEEK) for at in begins]
    ours = _ours(work, data, scores, begins, of)
    fixed, rolling = _nannyml(work, data, scores, begins, of)
    return [
        Week(at, len(rows), _true(scores[rows], data.label[rows]), ours[at], fixed.get(number), rolling.get(number))
        for number, (at, rows) in enumerate(zip(begins, of, strict=True))
        if number
    ]


def _dataset(work: Path) -> Dataset:
    import duckdb

    world = World(work / "year", work / "lake")
    world.prepare()
    world.deliver(range(1, 13))
    spec = load_pipeline(ROOT).spec
    with duckdb.connect() as connection:
        for name, files in (
            ("flights", "flights/*.parquet"),
            ("weather", "weather/*.parquet"),
            ("planes", "*.parquet"),
        ):
            connection.execute(f"CREATE VIEW {name} AS FROM '{world.lake / files}'")
        table = connection.sql((ROOT / "features.sql").read_text()).to_arrow_table()
    return assemble(table, spec.data, spec.model.kind)


def _scores(data: Dataset) -> np.ndarray[Any, Any]:
    """Of every flight of the year, by a model that is trained until 21 March and stopped by the three days after it."""
    spec = load_pipeline(ROOT).spec
    features, _ = load_features(ROOT / "features.py", "features").trace(data.inputs)
    train, valid = (
        _between(data, datetime(2013, 1, 1, tzinfo=UTC), FIRST - WEEK - timedelta(days=3)),
        _between(data, FIRST - WEEK - timedelta(days=3), FIRST - WEEK),
    )
    schema = infer(data.inputs, {name: values[train] for name, values in features.items()})
    matrix = encode_all(features, schema).matrix
    xgboost = load_xgboost()
    kinds = {"feature_names": schema.feature_names, "feature_types": schema.feature_types, "enable_categorical": True}
    parts = [xgboost.DMatrix(matrix[rows], data.label[rows], **kinds) for rows in (train, valid)]
    params = {"objective": "binary:logistic", "eval_metric": "auc", "nthread": 2, "seed": 0, **spec.model.params}
    stop = spec.model.early_stopping
    booster = xgboost.train(
        params, parts[0], spec.model.rounds, evals=[(parts[1], "valid")], early_stopping_rounds=stop, verbose_eval=False
    )
    best = (0, booster.best_iteration + 1)
    found: np.ndarray[Any, Any] = booster.inplace_predict(matrix, iteration_range=best).astype(np.float64)
    return found


def _between(data: Dataset, begin: datetime, end: datetime) -> np.ndarray[Any, Any]:
    first, last = (np.datetime64(at.replace(tzinfo=None), "us") for at in (begin, end))
    return np.arange(*np.searchsorted(data.timestamp, [first, last]))


def _true(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, float]:
    from sklearn import metrics

    return {
        "roc_auc": float(metrics.roc_auc_score(labels, scores)),
        "log_loss": float(metrics.log_loss(labels, scores)),
        "brier": float(metrics.brier_score_loss(labels, scores)),
    }


def _ours(
    work: Path, data: Dataset, scores: np.ndarray[Any, Any], begins: list[datetime], of: list[Any]
) -> dict[datetime, dict[str, float]]:
    """Week to what the exporter estimates at its end: the labels of the week before have come, and none of its own."""
    folder = work / "pipelines" / ROOT.name
    shutil.copytree(ROOT, folder)
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace("arrives_after: 6h", "arrives_after: 7d"))
    logs = Logs(work / "store", ROOT.name)
    now = begins[0]
    exporter = Exporter(str(work / "store"), Specs(folder.parent), lambda: int(now.timestamp() * 1e6))
    entity, origin = (data.table.column(name).to_pylist() for name in ("flight_id", "origin"))
    at = data.timestamp.astype("datetime64[us]").astype(np.int64)
    found: dict[datetime, dict[str, float]] = {}
    for begin, rows, before in zip(begins, of, [None, *of], strict=False):
        now = begin + WEEK
        logs.predict([entity[row] for row in rows], scores[rows], at[rows], [{"origin": origin[row]} for row in rows])
        if before is not None:
            logs.label([entity[row] for row in before], data.label[before], int(now.timestamp() * 1e6))
        exporter.refresh()
        samples = [sample for family in exporter.collect() for sample in family.samples]
        found[begin] = {s.labels["metric"]: s.value for s in samples if s.name == names.QUALITY_ESTIMATED}
    return found


def _nannyml(
    work: Path, data: Dataset, scores: np.ndarray[Any, Any], begins: list[datetime], of: list[Any]
) -> tuple[dict[int, float], dict[int, float]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = np.concatenate(of)
    week = np.repeat(np.arange(len(of)), [len(each) for each in of])
    columns = {"week": week, "at": data.timestamp[rows], "score": scores[rows], "label": data.label[rows].astype(int)}
    pq.write_table(pa.table(columns), work / "weeks.parquet")
    subprocess.run(["uv", "sync", "-q", "--locked", "--project", str(PEERS), "--python", sys.executable], check=True)
    command = [str(PEERS / ".venv" / "bin" / "python"), str(PEERS / "cbpe.py"), str(work / "weeks.parquet")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    fixed, rolling = ({int(key): value for key, value in answer[name].items()} for name in ("fixed", "rolling"))
    return fixed, rolling
