"""The peer of the platform: the same retraining as one plain Python script, as a data scientist would write it.

    python bench/plain.py --lake LAKE --work FOLDER --mlflow URL

Joins what is at the sources, checks it with Great Expectations, trains XGBoost on the newest window, compares it with the champion
(the model that the last call left in FOLDER) by a paired bootstrap on the same holdout, logs and registers it in MLflow. No ledger,
no gates that stop anything, no rollout, no versioned data, nothing that survives a kill: what is compared is the work, not the
guarantees. Prints the seconds of each leg as JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path

T0 = time.perf_counter()

import duckdb  # noqa: E402 (the imports are part of what is measured)
import great_expectations as gx  # noqa: E402
import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xgboost as xgb  # noqa: E402
import yaml  # noqa: E402
from mlflow.models import infer_signature  # noqa: E402
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score  # noqa: E402

LEGS: dict[str, float] = {"imports": time.perf_counter() - T0}
RESAMPLES = 1000
ROOT = Path(__file__).parents[1] / "dags" / "pipelines" / "flight-delays"


def leg(name: str, began: float) -> float:
    LEGS[name] = time.perf_counter() - began
    return time.perf_counter()


def read(lake: Path) -> pd.DataFrame:
    connection = duckdb.connect()
    for name, files in {
        "flights": "flights/*.parquet",
        "weather": "weather/*.parquet",
        "planes": "planes.parquet",
    }.items():
        connection.execute(f"CREATE VIEW {name} AS FROM '{lake / files}'")
    frame: pd.DataFrame = connection.execute((ROOT / "features.sql").read_text()).df()
    return frame


def validate(frame: pd.DataFrame, expectations: list[dict[str, dict[str, object]]]) -> bool:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = (
        context.data_sources.add_pandas("flights")
        .add_dataframe_asset("all")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = context.suites.add(gx.ExpectationSuite("suite"))
    for expectation in expectations:
        for name, arguments in expectation.items():
            kind = getattr(gx.expectations, "".join(part.title() for part in name.split("_")))
            suite.add_expectation(kind(**{key: value for key, value in arguments.items() if key != "severity"}))
    checked = context.validation_definitions.add(gx.ValidationDefinition(name="check", data=batch, suite=suite))
    return bool(checked.run(batch_parameters={"dataframe": frame}, result_format="SUMMARY").success)


def features(frame: pd.DataFrame) -> pd.DataFrame:
    spec = importlib.util.spec_from_file_location("features", ROOT / "features.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    columns = {
        name: frame[name].to_numpy(
            "datetime64[us]" if frame[name].dtype.kind == "M" else object if frame[name].dtype.kind == "O" else float
        )
        for name in frame
    }
    table = pd.DataFrame(module.features(columns))
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].astype("category")
    return table


def gain(label: np.ndarray, new: np.ndarray, old: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(label), len(label))
        gains.append(roc_auc_score(label[rows], new[rows]) - roc_auc_score(label[rows], old[rows]))
    return float(np.mean(gains)), float(np.quantile(gains, 0.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mlflow", required=True)
    arguments = parser.parse_args()
    spec = yaml.safe_load((ROOT / "pipeline.yaml").read_text())
    window, holdout, validation = (
        pd.Timedelta(spec["data"]["window"]),
        *map(pd.Timedelta, spec["model"]["split"].values()),
    )

    now = time.perf_counter()
    frame = read(arguments.lake)
    now = leg("read and join", now)
    frame = frame[frame.scheduled_departure > frame.scheduled_departure.max() - window].reset_index(drop=True)
    assert validate(frame, spec["expectations"]), "the data is not what was expected"
    now = leg("validate", now)

    frame = frame[frame.late.notna()].reset_index(drop=True)
    table, label, at = features(frame), frame.late.to_numpy(float), frame.scheduled_departure
    late, later = at >= at.max() - holdout, at >= at.max() - holdout - validation
    train, valid = ~later, later & ~late
    data = {
        name: xgb.DMatrix(table[rows], label[rows], enable_categorical=True)
        for name, rows in (("train", train), ("valid", valid), ("holdout", late))
    }
    params = {"objective": "binary:logistic", "eval_metric": "logloss", "nthread": 1, **spec["model"]["params"]}
    rounds, patience = spec["model"].get("rounds", 500), spec["model"].get("early_stopping", 30)
    booster = xgb.train(
        params,
        data["train"],
        rounds,
        evals=[(data["valid"], "valid")],
        early_stopping_rounds=patience,
        verbose_eval=False,
    )
    now = leg("train", now)

    score, truth = booster.predict(data["holdout"]), label[late]
    figures = {
        "roc_auc": roc_auc_score(truth, score),
        "average_precision": average_precision_score(truth, score),
        "log_loss": log_loss(truth, score),
        "brier": brier_score_loss(truth, score),
    }
    champion = arguments.work / "champion.ubj"
    if champion.exists():
        old = xgb.Booster(model_file=str(champion))
        figures["gain"], figures["gain_low"] = gain(truth, score, old.predict(data["holdout"]))
    now = leg("evaluate", now)

    mlflow.set_tracking_uri(arguments.mlflow)
    mlflow.set_experiment("plain")
    with mlflow.start_run():
        mlflow.log_params(params)
        mlflow.log_metrics(figures)
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
        from sklearn.calibration import CalibrationDisplay
        from sklearn.metrics import RocCurveDisplay

        for name, display in (("roc", RocCurveDisplay), ("calibration", CalibrationDisplay)):
            display.from_predictions(truth, score)
            mlflow.log_figure(pyplot.gcf(), f"{name}.png")
            pyplot.close()
        xgb.plot_importance(booster)
        mlflow.log_figure(pyplot.gcf(), "importance.png")
        sample = table[late].head(100)
        mlflow.xgboost.log_model(
            booster,
            name="model",
            signature=infer_signature(sample, score[:100]),
            pip_requirements=["xgboost"],
            registered_model_name="plain-flight-delays",
        )
    booster.save_model(champion)
    leg("log and register", now)
    print(json.dumps({"total": time.perf_counter() - T0, "legs": LEGS, "figures": figures}))


if __name__ == "__main__":
    main()
