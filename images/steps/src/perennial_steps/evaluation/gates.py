"""Gates: what a challenger must reach before it may take traffic. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from perennial_features.code import Array
from perennial_spec.errors import BatchError
from perennial_spec.model import LOWER_IS_BETTER, ChampionGate, Gate, MetricGate, SliceGate
from perennial_steps.evaluation.bootstrap import Gain
from perennial_steps.evaluation.metrics import Floats, Groups, figure

_LONG = ("slices", "lower_is_better")
_SHOWN = 40
"""Characters of a value that are shown."""
MAX_SLICES = 200
"""More values are a number or an identifier, and no groups."""


@dataclass(frozen=True)
class Slice:
    """A metric within one value of a column."""

    value: str
    rows: int
    figure: float | None
    """None where the metric has no value: one class only."""
    judged: bool


@dataclass(frozen=True)
class Judgement:
    """What became of one gate."""

    gate: str
    """`roc_auc`, `gain in roc_auc against champion`, `roc_auc by origin`."""
    value: float | None
    bound: str
    """`>= 0.7`."""
    passed: bool
    note: str = ""
    slices: tuple[Slice, ...] = field(default=(), repr=False)
    lower_is_better: bool = field(default=False, repr=False)

    def sentence(self) -> str:
        """`roc_auc is 0.6812, expected >= 0.7`."""
        note = f" ({self.note})" if self.note else ""
        return f"{self.gate} is {_figure(self.value)}{note}, expected {self.bound}"

    def worst(self, count: int) -> list[dict[str, Any]]:
        """The slices with the worst figures, of those that are judged: `{gate, slice, value, rows}`."""
        judged = [each for each in self.slices if each.judged and each.figure is not None]
        judged.sort(key=_number, reverse=self.lower_is_better)
        return [
            {"gate": self.gate, "slice": each.value[:_SHOWN], "value": round(_number(each), 6), "rows": each.rows}
            for each in judged[:count]
        ]

    def brief(self) -> dict[str, Any]:
        """For the step's outputs and the registry's tag, which are bounded: without the slices."""
        found = {key: value for key, value in asdict(self).items() if key not in _LONG and value != ""}
        return {**found, "value": None if self.value is None else round(self.value, 6)}


@dataclass(frozen=True)
class Challenger:
    """What the gates look at."""

    metrics: dict[str, float]
    """On the holdout."""
    label: Floats
    score: Floats
    column: Callable[[str], Array]
    """Column of the holdout by name; of a sensitive one too."""
    gain: Gain | None
    """Over the champion; None when there is none."""
    group: Groups | None = None
    """Of a ranker: the list of each row."""


def judge(gate: Gate, challenger: Challenger, metric: str) -> Judgement:
    """Whether one gate holds.

    Args:
        metric: the spec's evaluation metric.

    Raises:
        BatchError: the column of a slice gate is not there or has too many values.
    """
    if isinstance(gate, MetricGate):
        value = challenger.metrics[gate.metric]
        return Judgement(gate.metric, _finite(value), bound_of(gate.min, gate.max), within(value, gate.min, gate.max))
    if isinstance(gate, ChampionGate):
        return _against_champion(gate, challenger.gain, metric)
    return _by_slice(gate, challenger)


def within(value: float, low: float | None, high: float | None) -> bool:
    """Whether both bounds hold; NaN holds none."""
    return bool((low is None or value >= low) and (high is None or value <= high) and np.isfinite(value))


def bound_of(low: float | None, high: float | None) -> str:
    """`>= 0.7`, `<= 0.5` or both."""
    return " and ".join(f"{sign} {bound:g}" for sign, bound in ((">=", low), ("<=", high)) if bound is not None)


def _against_champion(gate: ChampionGate, gain: Gain | None, metric: str) -> Judgement:
    name, bound = f"gain in {metric} against champion", f">= {gate.min_gain:g} at {gate.confidence:.0%}"
    if gain is None:
        return Judgement(name, None, bound, True, "there is no champion yet")
    note = f"measured {gain.gain:+.4f}, interval {gain.low:+.4f} to {gain.high:+.4f}"
    return Judgement(name, _finite(gain.low), bound, within(gain.low, gate.min_gain, None), note)


def _by_slice(gate: SliceGate, challenger: Challenger) -> Judgement:
    name, bound = f"{gate.metric} by {gate.slice}", bound_of(gate.min, gate.max)
    lower = gate.metric in LOWER_IS_BETTER
    slices = slices_of(gate, challenger)
    judged = [each for each in slices if each.judged and each.figure is not None]
    if not judged:
        return Judgement(name, None, bound, True, f"no slice has {gate.min_rows} rows and a figure", slices, lower)
    bad = [each for each in judged if not within(_number(each), gate.min, gate.max)]
    worst = (max if lower else min)(bad or judged, key=_number)
    note = f"worst of {len(judged)}: {worst.value[:_SHOWN]}, {worst.rows:,} rows"
    return Judgement(name, worst.figure, bound, not bad, note, slices, lower)


def slices_of(gate: SliceGate, challenger: Challenger) -> tuple[Slice, ...]:
    """The gate's metric within each value of its column, the largest slice first. Missing values are a slice too."""
    values = _texts(challenger.column(gate.slice))
    names, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(names) > MAX_SLICES:
        raise BatchError(
            f"column {gate.slice!r} of a slice gate has {len(names):,} values on the holdout",
            where="pipeline.yaml: evaluation.gates",
            expected=f"at most {MAX_SLICES}: groups",
            next="slice by a column that groups rows; make one in the query",
        )
    found = []
    for place in np.argsort(-counts, kind="stable"):
        inside = codes == place
        group = None if challenger.group is None else challenger.group[inside]
        value = figure(gate.metric, challenger.label[inside], challenger.score[inside], group)
        rows = int(counts[place])
        found.append(Slice(str(names[place]), rows, _finite(value), rows >= gate.min_rows))
    return tuple(found)


def _texts(values: Array) -> Array:
    if values.dtype.kind == "O":
        return np.array(["missing" if value is None else value for value in values], dtype=str)
    texts = values.astype(str)
    texts[np.isin(texts, ("nan", "NaT"))] = "missing"
    return texts


def _number(each: Slice) -> float:
    return float("nan") if each.figure is None else each.figure


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _figure(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.4f}"
