"""What Evidently's and NannyML's defaults say of the windows: `python judge.py FOLDER`, answers as JSON.

FOLDER holds references and cases as Parquet, the windows of a case one after another, and cases.json. By case: the columns that each
peer calls drifted, by window. Evidently is asked through the tests that DataDriftPreset chooses by default, without the pictures that it
draws (most of a report's seconds); `agrees` compares one window with the whole report.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
warnings.filterwarnings("ignore")

import nannyml  # type: ignore[import-not-found]  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]  # noqa: E402
from evidently.legacy.calculations.stattests import get_stattest  # type: ignore[import-not-found]  # noqa: E402
from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]  # noqa: E402


def main(folder: Path) -> None:
    references = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "winter")}
    found: dict[str, dict[str, list[list[str]]]] = {"evidently": {}, "nannyml": {}}
    calculators: dict[tuple[str, int, str], nannyml.UnivariateDriftCalculator] = {}
    cases = json.loads((folder / "cases.json").read_text())
    for case in cases:
        name, rows, reference = case["name"], case["rows"], references[case["reference"]]
        windows = pd.read_parquet(folder / f"{name}.parquet")
        columns = [case["column"]] if case["column"] else list(reference.columns)
        parts = [windows.iloc[start : start + rows] for start in range(0, len(windows), rows)]
        found["evidently"][name] = [
            [column for column in columns if drifted(reference[column], part[column])] for part in parts
        ]
        key = (case["reference"], rows, ",".join(columns))
        if key not in calculators:
            calculator = nannyml.UnivariateDriftCalculator(column_names=columns, chunk_size=rows)
            calculators[key] = calculator.fit(reference[columns])
        found["nannyml"][name] = chunked(calculators[key], windows[columns], columns)
        print(name, file=sys.stderr, flush=True)
    first = next(case for case in cases if not case["column"])
    part = pd.read_parquet(folder / f"{first['name']}.parquet").iloc[: first["rows"]]
    reference = references[first["reference"]]
    same = reported(reference, part) == set(found["evidently"][first["name"]][0])
    json.dump({"agrees": same, "found": found}, sys.stdout)


def drifted(reference: pd.Series, current: pd.Series) -> bool:
    """Evidently's default test of a column."""
    reference, current = reference.dropna(), current.dropna()
    kind = "cat" if reference.dtype == object else "num"
    test = get_stattest(reference, current, kind, None)
    return bool(test(reference, current, kind, None).drifted)


def reported(reference: pd.DataFrame, current: pd.DataFrame) -> set[str]:
    """The columns that a whole report of Evidently's calls drifted."""
    text = [name for name in reference if reference[name].dtype == object]
    definition = DataDefinition(
        numerical_columns=[name for name in reference if name not in text], categorical_columns=text
    )
    both = (Dataset.from_pandas(frame, data_definition=definition) for frame in (current, reference))
    metrics = Report([DataDriftPreset()]).run(*both).dict()["metrics"]
    configs = [(each["config"], each["value"]) for each in metrics if "column" in each["config"]]
    # Of these methods a larger value is more drift; the others, of small references, give p-values.
    assert all("p_value" not in config["method"] for config, _ in configs)
    return {config["column"] for config, value in configs if value >= config["threshold"]}


def chunked(
    calculator: nannyml.UnivariateDriftCalculator, windows: pd.DataFrame, columns: list[str]
) -> list[list[str]]:
    """By chunk, the columns for which NannyML alerts."""
    frame = calculator.calculate(windows.reset_index(drop=True)).filter(period="analysis").to_df()
    alerts = {name: np.asarray(frame[(name, "jensen_shannon", "alert")], dtype=bool) for name in columns}
    return [[name for name in columns if alerts[name][place]] for place in range(len(frame))]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
