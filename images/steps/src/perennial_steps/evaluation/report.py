"""What an evaluation came to: for the log, for MLflow, and as files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perennial_spec.model import ModelKind
from perennial_steps.evaluation.bootstrap import Gain
from perennial_steps.evaluation.gates import Judgement
from perennial_steps.evaluation.metrics import Floats, Groups
from perennial_steps.training.dataset import Part
from perennial_steps.training.plots import draw_quality

MAX_TAG = 5000
"""Bytes of the tag that holds the gates."""
MAX_OUTPUT = 1600
"""Bytes of the gates in the step's result, which holds 4,096 in all."""
MAX_SLICES = 900
"""Bytes of the slices there."""
_SLICES_OF_A_GATE = 5


@dataclass(frozen=True)
class Evaluation:
    """Challenger and champion on the same holdout."""

    version: str
    champion: str | None
    """Version; None when there is none to compare with."""
    metric: str
    holdout: Part
    figures: dict[str, dict[str, float]]
    """Metrics by `challenger` and `champion`."""
    gain: Gain | None
    judgements: tuple[Judgement, ...]

    @property
    def passed(self) -> bool:
        return all(judgement.passed for judgement in self.judgements)

    @property
    def failure(self) -> str | None:
        """Which gates failed, with figure and bound; None when all hold."""
        failed = [judgement.sentence() for judgement in self.judgements if not judgement.passed]
        return "; ".join(failed) or None

    @property
    def summary(self) -> str:
        """`version 2 against champion 1: roc_auc 0.7499 against 0.6123, gain +0.1376 (+0.1301 to +0.1450); 3 of 3 gates hold`."""
        own = f"{self.metric} {self.figures['challenger'][self.metric]:.4f}"
        held = f"{sum(j.passed for j in self.judgements)} of {len(self.judgements)} gates hold"
        rows = f"on {self.holdout.count:,} rows"
        if self.gain is None:
            return f"version {self.version}, no champion to beat: {own} {rows}; {held}"
        interval = f"{self.gain.low:+.4f} to {self.gain.high:+.4f} at {self.gain.confidence:.0%}"
        other = f"{self.figures['champion'][self.metric]:.4f}"
        gain = f"gain {self.gain.gain:+.4f} ({interval})"
        return f"version {self.version} against champion {self.champion}: {own} against {other}, {gain} {rows}; {held}"

    def outputs(self) -> dict[str, Any]:
        """As `perennial_spec.step` lists them."""
        gain = self.gain
        return {
            "model_version": self.version,
            "champion_version": self.champion,
            "gates": self.gates(MAX_OUTPUT),
            "slices": self.slices(MAX_SLICES),
            "gain": round(gain.gain, 6) if gain else None,
            "gain_low": round(gain.low, 6) if gain else None,
            "gain_high": round(gain.high, 6) if gain else None,
        }

    def metrics(self) -> dict[str, float]:
        """By `evaluation/...`, for MLflow."""
        found = {
            f"evaluation/{who}_{name}": value
            for who, figures in self.figures.items()
            for name, value in figures.items()
        }
        if self.gain:
            found |= {"evaluation/gain": self.gain.gain, "evaluation/gain_low": self.gain.low}
            found["evaluation/gain_high"] = self.gain.high
        return found

    def headline(self) -> dict[str, float]:
        """The metrics that fit into a step's result: the spec's, and the gain."""
        wanted = (f"evaluation/challenger_{self.metric}", f"evaluation/champion_{self.metric}", "evaluation/gain")
        return {name: value for name, value in self.metrics().items() if name.startswith(wanted)}

    def gates(self, limit: int) -> list[dict[str, Any]]:
        """Every gate, in at most `limit` bytes of JSON: notes are left out first, then gates that hold, the last first."""
        gates = [judgement.brief() for judgement in self.judgements]
        if _size(gates) > limit:
            gates = [{key: value for key, value in gate.items() if key != "note"} for gate in gates]
        while _size(gates) > limit:
            held = [place for place, gate in enumerate(gates) if gate["passed"]]
            del gates[held[-1] if held else -1]
        return gates

    def slices(self, limit: int) -> list[dict[str, Any]]:
        """The worst slices of each gate that has some, in at most `limit` bytes of JSON; all of them are in evaluation.json."""
        found = [each for judgement in self.judgements for each in judgement.worst(_SLICES_OF_A_GATE)]
        while _size(found) > limit:
            found.pop()
        return found


def _size(value: Any) -> int:
    return len(json.dumps(value).encode())


def write_files(
    folder: Path,
    evaluation: Evaluation,
    kind: ModelKind,
    *,
    label: Floats,
    scores: dict[str, Floats],
    group: Groups | None = None,
) -> None:
    """evaluation.json, with every slice, and plots of champion and challenger."""
    whole = {
        "metric": evaluation.metric,
        "passed": evaluation.passed,
        "holdout": {
            "from": evaluation.holdout.first,
            "to": evaluation.holdout.last,
            "rows": evaluation.holdout.count,
        },
        "model_version": evaluation.version,
        "champion_version": evaluation.champion,
        "figures": evaluation.figures,
        "bootstrap": asdict(evaluation.gain) if evaluation.gain else None,
        "gates": [asdict(judgement) for judgement in evaluation.judgements],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(whole, indent=1))
    draw_quality(folder, kind, label, scores, group)
