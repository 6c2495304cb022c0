"""What the rule files themselves make of the windows: promtool replays the counters that a model server would have shown."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml
from bench.drift.data import ROOT, Case, Columns

from perennial_features.encode import encode_all
from perennial_features.reference import Reference
from perennial_features.schema import FeatureSchema, infer
from perennial_spec import names

FILES = [ROOT / "monitoring" / "rules" / name for name in ("drift-recording.yml", "drift-alerts.yml", "retraining.yml")]
ORDER = ("perennial-reference", "perennial-drift-5m", "perennial-retraining", "perennial-drift-alerts")
"""The groups that are replayed, as the files have them: the windows of 1h and 1d are alike, and would cost as much again."""
FIRED = re.compile(r'feature="([^"]+)", pipeline="w(\d+)"[^}]*\} ([-+.eE\d]+)')
BATCH = 4
"""Windows in one run of promtool: each is a pipeline of its own. promtool loads 10,000 samples in one query, and no more."""
MIN_ROWS = 50
"""The least that a spec may ask for: it is the rules that must keep quiet."""


class Rules:
    """The drift rules over one reference."""

    def __init__(self, columns: Columns) -> None:
        self.schema: FeatureSchema = infer(columns, columns)
        encoded = encode_all(columns, self.schema)
        whole = Reference.of(encoded, self.schema, np.zeros(len(encoded.matrix), dtype=np.float32))
        self.reference = whole
        self.judged = [place for place, (feature, _) in enumerate(whole.series) if feature != names.PREDICTION_FEATURE]

    def drifted(self, case: Case, psi: float) -> list[dict[str, float]]:
        """By window, the PSI of the features for which PerennialFeatureDrift fires where the spec says `psi`.

        A larger threshold would leave out those whose PSI does not exceed it, and nothing else: the limit of chance does not depend on it.
        """
        found: list[dict[str, float]] = [{} for _ in case.windows]
        for start in range(0, len(case.windows), BATCH):
            for window, feature, value in self._replay(case.windows[start : start + BATCH], psi):
                found[start + window][feature] = value
        return found

    def _replay(self, windows: Sequence[Columns], psi: float) -> Iterator[tuple[int, str, float]]:
        series = [line for place, window in enumerate(windows) for line in self._series(f"w{place}", window, psi)]
        with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
            file = Path(folder) / "test.yml"
            (Path(folder) / "rules.yml").write_text(_rules())
            file.write_text(_test(series))
            done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
        told = done.stdout + done.stderr
        got = re.search(r"^ +got:(.*)$", told, re.MULTILINE)
        if got is None or "err:" in told:
            raise RuntimeError(f"promtool did not answer:\n{told[-2000:]}")
        for feature, window, value in FIRED.findall(got[1]):
            yield int(window), feature, float(value)

    def _series(self, pipeline: str, window: Columns, psi: float) -> Iterator[str]:
        encoded = encode_all(window, self.schema)
        counts = self.reference.count(encoded, np.zeros(len(encoded.matrix), dtype=np.float32))
        rows = len(encoded.matrix)
        server = f'job="perennial-server", instance="s:1", pipeline="{pipeline}", version="1"'
        for place in self.judged:
            feature, name = self.reference.series[place]
            labels = f'{server}, feature="{feature}", bin="{name}"'
            yield _line(f"{names.OBSERVATIONS}{{{labels}}}", 0, counts[place])
            share = self.reference.shares[place]
            yield _line(f"{names.REFERENCE_SHARE}{{{labels}}}", share, share)
        for name, first, last in (
            (names.PREDICTIONS, 0, rows),
            (names.REFERENCE_ROWS, self.reference.rows, self.reference.rows),
            (names.CHAMPION, 1, 1),
        ):
            yield _line(f"{name}{{{server}}}", first, last)
        spec = f'job="controller", instance="c:1", pipeline="{pipeline}"'
        yield _line(f"{names.DRIFT_THRESHOLD}{{{spec}}}", psi, psi)
        yield _line(f"{names.DRIFT_MIN_ROWS}{{{spec}}}", MIN_ROWS, MIN_ROWS)
        yield _line(f'{names.DRIFT_WINDOW}{{{spec}, window="5m"}}', 1, 1)


def _line(series: str, first: float, last: float) -> str:
    quoted = series.replace("'", "''")
    return f"- {{series: '{quoted}', values: '{first:.12g} {last:.12g}'}}"


def _rules() -> str:
    groups = [group for file in FILES for group in yaml.safe_load(file.read_text())["groups"] if group["name"] in ORDER]
    return yaml.safe_dump({"groups": groups}, width=10_000)


def _test(series: Sequence[str]) -> str:
    order = f"[{', '.join(ORDER)}]"
    asked = (
        'perennial:feature_psi:over and on (pipeline) ALERTS{alertname="PerennialFeatureDrift", alertstate="firing"}'
    )
    listed = "\n".join(series)
    return (
        "rule_files: [rules.yml]\n"
        f"evaluation_interval: 15s\ngroup_eval_order: {order}\ntests:\n- interval: 15s\n  input_series:\n"
        + "\n".join(f"  {line}" for line in listed.splitlines())
        + f"\n  promql_expr_test:\n  - expr: '{asked}'\n    eval_time: 15s\n"
        + "    exp_samples: [{labels: 'never{}', value: -1}]\n"
    )
