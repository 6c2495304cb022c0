"""How far the answers of two versions to the same rows are apart, and whether that is near enough. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from perennial_spec.shadow import Shadow
from perennial_spec.step import Verdict
from perennial_spec.units import format_share
from perennial_steps.analysis import Histogram, Judgement, psi, psi_noise


@dataclass(frozen=True)
class Agreement:
    """Two versions on the same rows."""

    rows: int = 0
    """That both have answered."""
    agreeing: int = 0
    """Of those: rows on which both say the same (`perennial_spec.shadow`)."""
    difference: float = 0.0
    """Mean of |challenger - champion|, in the unit of the score."""
    histogram: Histogram = field(default_factory=Histogram)
    """The challenger's answers by the champion's tenths."""

    @property
    def share(self) -> float | None:
        return self.agreeing / self.rows if self.rows else None

    @property
    def psi(self) -> float | None:
        """Of the challenger's answers against the champion's."""
        return psi(self.histogram)

    def outputs(self) -> dict[str, Any]:
        """For the result of the step."""
        return {"rows": self.rows, **self.metrics()}

    def metrics(self) -> dict[str, float]:
        figures = {"agreement": self.share, "prediction_psi": self.psi, "difference": self.difference}
        return {key: round(value, 6) for key, value in figures.items() if value is not None and math.isfinite(value)}

    def __str__(self) -> str:
        if self.share is None:
            return "no row was answered by both"
        moved = f", PSI {self.psi:.2f}" if self.psi is not None else ""
        return f"{self.rows:,} rows, agreement {self.share:.1%}{moved}, mean difference {self.difference:.3g}"


def judge_agreement(seen: Agreement, limits: Shadow, served: Judgement) -> Judgement:
    """The verdict on a shadow.

    Args:
        seen: the rows that both have answered.
        limits: of the spec.
        served: on its errors and predictions, by Prometheus; too few requests there are told by the rows here.
    """
    found = [served] if served.verdict is Verdict.FAIL else []
    if seen.rows < limits.min_rows:
        few = f"{seen.rows:,} rows were answered by both, {limits.min_rows:,} are needed"
        return found[0] if found else Judgement(Verdict.INCONCLUSIVE, (few,))
    found += [_agrees(seen, limits), _lies(seen, limits)]
    for verdict in (Verdict.FAIL, Verdict.PASS):
        sentences = tuple(sentence for each in found if each.verdict is verdict for sentence in each.sentences)
        if sentences:
            return Judgement(verdict, sentences)
    return Judgement(Verdict.PASS, ())


def _agrees(seen: Agreement, limits: Shadow) -> Judgement:
    share = seen.share or 0.0
    said = f"agreement {share:.1%} on {seen.rows:,} rows"
    if share >= limits.min_agreement:
        return Judgement(Verdict.PASS, (f"{said} >= {format_share(limits.min_agreement)}",))
    return Judgement(Verdict.FAIL, (f"{said} < {format_share(limits.min_agreement)}",))


def _lies(seen: Agreement, limits: Shadow) -> Judgement:
    value = seen.psi
    if value is None:
        return Judgement(Verdict.PASS, ())
    if value <= limits.max_psi or value <= psi_noise(seen.histogram):
        return Judgement(Verdict.PASS, (f"PSI to the champion's predictions {value:.2f} <= {limits.max_psi:g}",))
    return Judgement(Verdict.FAIL, (f"PSI to the champion's predictions {value:.2f} > {limits.max_psi:g}",))
