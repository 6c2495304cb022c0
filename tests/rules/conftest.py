"""A world of time series, and promtool to ask what the rules make of it."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perennial_spec import names

RULES = Path(__file__).parents[2] / "monitoring" / "rules"
FILES = sorted(RULES.glob("*.yml"))
ORDER = (
    "perennial-watchdog",
    "perennial-reference",
    "perennial-drift-5m",
    "perennial-drift-1h",
    "perennial-drift-1d",
    "perennial-inputs-5m",
    "perennial-inputs-1h",
    "perennial-inputs-1d",
    "perennial-attribution-reference",
    "perennial-attribution-5m",
    "perennial-attribution-1h",
    "perennial-attribution-1d",
    "perennial-retraining",
    "perennial-drift-alerts",
    "perennial-inputs",
    "perennial-quality",
    "perennial-concept",
    "perennial-serving",
    "perennial-watch",
    "perennial-platform",
    "perennial-loop",
)
"""As in a Prometheus that is not in a hurry; without it promtool takes the groups in any order, and results are some steps late."""
GONE = math.nan
"""A staleness marker: what Prometheus writes when a series is no longer there, or a scrape fails."""
STEP = 15
"""Seconds between two samples and two evaluations."""
LONG_AGO = -1_000_000.0
"""When a server that does not restart was started; seconds."""
DECILES = {f"d{place}": 0.1 for place in range(10)}
MOVED = {"d0": 0.0, "d1": 0.0, **{f"d{place}": 0.125 for place in range(2, 10)}}
"""Live shares that no window mistakes for `DECILES`: PSI about 1."""


@dataclass
class World:
    """Series by name and labels, one value per step; `None` where a scrape failed."""

    folder: Path
    steps: int = 81
    series: dict[str, list[float | None]] = field(default_factory=dict)
    order: tuple[str, ...] = ORDER

    def set(
        self, name: str, value: float | Sequence[float | None], /, start: int = 0, end: int | None = None, **labels: str
    ) -> World:
        """A gauge, constant or one value per step, that exists from step `start` to before step `end`."""
        values = [value] * self.steps if isinstance(value, int | float) else list(value)
        last = self.steps if end is None else end
        inside = [each if start <= place < last else None for place, each in enumerate(values)]
        if last < self.steps:
            inside[last] = GONE
        matchers = ", ".join(f'{label}="{text}"' for label, text in sorted(labels.items()))
        self.series[f"{name}{{{matchers}}}"] = inside
        return self

    def pipeline(
        self,
        name: str = "demo",
        *,
        window: str = "5m",
        psi: float = 0.2,
        min_rows: int = 500,
        shift: float = 0.15,
        on: Sequence[str] = ("drift", "quality"),
    ) -> World:
        """What the controller exports of a spec."""
        by: dict[str, Any] = {"job": "controller", "instance": "c:1", "pipeline": name}
        self.set(names.DRIFT_THRESHOLD, psi, **by).set(names.DRIFT_MIN_ROWS, min_rows, **by)
        self.set(names.DRIFT_WINDOW, 1, window=window, **by)
        self.set(names.ATTRIBUTION_SHIFT_LIMIT, shift, **by).set(names.ATTRIBUTION_MIN_ROWS, 200, **by)
        self.controller()
        for trigger in on:
            self.set(names.RETRAIN_ON, 1, trigger=trigger, **by)
        return self

    def controller(self, instance: str = "c:1") -> World:
        """What a controller exports whether or not there is a pipeline."""
        return self.set(names.LEDGER_UP, 1, job="controller", instance=instance)

    def champion(
        self,
        version: str = "1",
        pipeline: str = "demo",
        *,
        start: int = 0,
        end: int | None = None,
        instance: str = "s:1",
    ) -> World:
        by = {"job": "perennial-server", "instance": instance, "pipeline": pipeline, "version": version}
        self.set(names.ROUTE_WEIGHT, 1, start, end, **by)
        return self.set(names.CHAMPION, 1, start, end, **by)

    def server(self, *instances: str, up: float | Sequence[float | None] = 1) -> World:
        for instance in instances or ("s:1",):
            values = [up] * self.steps if isinstance(up, int | float) else list(up)
            self.set("up", values, job="perennial-server", instance=instance)
            alive = [1 if value else GONE for value in values]
            self.set(names.REGISTRY_UP, alive, job="perennial-server", instance=instance)
            self.set("process_start_time_seconds", LONG_AGO, job="perennial-server", instance=instance)
        return self

    def traffic(
        self,
        live: Mapping[str, float],
        reference: Mapping[str, float] = DECILES,
        *,
        feature: str = "temp",
        version: str = "1",
        pipeline: str = "demo",
        instance: str = "s:1",
        rows: int = 100,
        start: int = 0,
        end: int | None = None,
        restart: int | None = None,
        before: float = 0,
        seed: int | None = None,
        reference_rows: int = 50_000,
    ) -> World:
        """`rows` per step in bins with the shares `live`; drawn by chance with a seed, exact without.

        The counter starts at `before` rows of the same shares, and again at 0 at step `restart`.
        """
        by = {"job": "perennial-server", "instance": instance, "pipeline": pipeline, "version": version}
        bins = list(reference)
        shares = np.array([live.get(name, 0.0) for name in bins])
        made = np.tile(shares * rows, (self.steps, 1))
        if seed is not None:
            made = np.random.default_rng(seed).multinomial(rows, shares, size=self.steps).astype(float)
        made[: start + 1] = 0
        total = np.cumsum(made, axis=0) + before * shares
        if restart is not None:
            total[restart:] = np.cumsum(made[restart:], axis=0)
        for place, name in enumerate(bins):
            self.set(names.OBSERVATIONS, total[:, place].tolist(), start, end, **by, feature=feature, bin=name)
            self.set(names.REFERENCE_SHARE, reference[name], start, end, **by, feature=feature, bin=name)
        self.set(names.REFERENCE_ROWS, reference_rows, start, end, **by)
        if restart is not None:
            began = [LONG_AGO if step < restart else float(restart * STEP) for step in range(self.steps)]
            self.set("process_start_time_seconds", began, job=by["job"], instance=instance)
        return self.set(names.PREDICTIONS, total.sum(axis=1).tolist(), start, end, **by)

    def attributions(
        self,
        live: Mapping[str, float],
        reference: Mapping[str, float],
        *,
        version: str = "1",
        pipeline: str = "demo",
        instance: str = "s:1",
        rows: int = 300,
        every: int = 4,
        start: int = 0,
        end: int | None = None,
        restart: int | None = None,
        before: float = 0,
        noise: float = 0.7,
        since: int | None = None,
    ) -> World:
        """`rows` explained rows every few steps, whose attribution has the shares `live` (from step `since` on; `reference` before).

        The counters start at `before` rows, and again at 0 at step `restart`.
        """
        by = {"job": "perennial-server", "instance": instance, "pipeline": pipeline, "version": version}
        made = np.array([rows if step > start and step % every == 0 else 0 for step in range(self.steps)], dtype=float)
        for feature, share in reference.items():
            shares = np.full(self.steps, live[feature])
            shares[: since or 0] = share
            total = np.cumsum(made * shares) + before * share
            if restart is not None:
                total[restart:] = np.cumsum((made * shares)[restart:])
            self.set(names.ATTRIBUTION_ABS, total.tolist(), start, end, **by, feature=feature)
            self.set(names.ATTRIBUTION_REFERENCE, share, start, end, **by, feature=feature)
        count = np.cumsum(made) + before
        if restart is not None:
            count[restart:] = np.cumsum(made[restart:])
        self.set(names.ATTRIBUTION_ROWS, count.tolist(), start, end, **by)
        self.set(names.ATTRIBUTION_REFERENCE_ROWS, 2000, start, end, **by)
        return self.set(names.ATTRIBUTION_NOISE, noise, start, end, **by)

    def unscraped(self, instance: str, since: int, until: int) -> World:
        """Scrapes of `instance` fail from one step to before another."""
        for key, values in self.series.items():
            if f'instance="{instance}"' in key and not key.startswith("up{"):
                values[since:until] = [GONE] + [None] * (until - since - 1)
        return self

    def value(self, expression: str, step: int | None = None) -> list[tuple[dict[str, str], float]]:
        """What `expression` is at a step, the last by default, with all the rules evaluated before."""
        return self.values({"it": (expression, self.steps - 1 if step is None else step)})["it"]

    def values(self, asked: Mapping[str, tuple[str, int]]) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Several at once: promtool replays the world only once. The alert that fires always is left out, unless it is asked for."""
        # promtool compares and does not tell: what it expected is a value that never is, and what it got is read from its report.
        tests = [
            {"expr": expression, "eval_time": f"{step * STEP}s", "exp_samples": [{"labels": "never{}", "value": -1}]}
            for expression, step in asked.values()
        ]
        report = self._promtool({"promql_expr_test": tests})
        found = dict(zip(asked, _reported(report, len(asked)), strict=True))
        for name, (expression, _) in asked.items():
            if names.ALERT_WATCHDOG not in expression:
                found[name] = [sample for sample in found[name] if sample[0].get("alertname") != names.ALERT_WATCHDOG]
        return found

    def firing(self, step: int | None = None, alert: str = "") -> list[dict[str, str]]:
        """Labels of the alerts that fire, without those that all alerts have."""
        matcher = f'alertstate="firing", alertname="{alert}"' if alert else 'alertstate="firing"'
        found = self.value(f"ALERTS{{{matcher}}}", step)
        return sorted(({k: v for k, v in labels.items() if k != "alertstate"} for labels, _ in found), key=str)

    def alertnames(self, step: int | None = None) -> list[str]:
        """Names of the alerts that fire."""
        return [labels["alertname"] for labels in self.firing(step)]

    def history(self, alert: str, steps: Sequence[int]) -> list[bool]:
        """Whether an alert fires, at each of these steps."""
        asked = {str(step): (f'ALERTS{{alertstate="firing", alertname="{alert}"}}', step) for step in steps}
        found = self.values(asked)
        return [bool(found[str(step)]) for step in steps]

    def check_alert(self, alert: str, step: int, labels: dict[str, str], annotations: dict[str, str]) -> None:
        """Fails unless promtool finds exactly this alert."""
        test = {
            "eval_time": f"{step * STEP}s",
            "alertname": alert,
            "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
        }
        report = self._promtool({"alert_rule_test": [test]})
        assert "SUCCESS" in report, report

    def _promtool(self, tests: dict[str, Any]) -> str:
        series = [{"series": key, "values": " ".join(map(_sample, values))} for key, values in self.series.items()]
        file = self.folder / "rules_test.yml"
        body = {
            "rule_files": [str(file) for file in FILES],
            "evaluation_interval": f"{STEP}s",
            "group_eval_order": list(ORDER),
            "tests": [{"interval": f"{STEP}s", "input_series": series, **tests}],
        }
        file.write_text(yaml.safe_dump(body, width=10_000_000))
        done = subprocess.run(
            ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=240, check=False
        )
        return done.stdout + done.stderr


def _sample(value: float | None) -> str:
    return "_" if value is None else "stale" if value != value else f"{value:.10g}"


_SAMPLE = re.compile(r'\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\} (\S+?)(?:, |$)')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _reported(report: str, count: int) -> list[list[tuple[dict[str, str], float]]]:
    """The samples after each `got:` of promtool's report."""
    found = re.findall(r"^ +got:(.*)$", report, re.MULTILINE)
    if len(found) != count:
        pytest.fail(f"promtool reported {len(found)} of {count} expressions:\n{report[-3000:]}")
    return [_samples(line.strip()) for line in found]


def _samples(line: str) -> list[tuple[dict[str, str], float]]:
    if line == "nil":
        return []
    found = [(dict(_LABEL.findall(labels)), float(value)) for labels, value in _SAMPLE.findall(line)]
    assert found, f"not understood: {line}"
    return [({name: text for name, text in labels.items() if name != "__name__"}, value) for labels, value in found]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def deciles() -> dict[str, float]:
    return DECILES


@pytest.fixture
def moved() -> dict[str, float]:
    return MOVED
