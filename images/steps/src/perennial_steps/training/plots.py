"""Plots of a model as PNG: ROC, calibration, importance. Drawn without pyplot: no global state, no display, half the import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial_spec.model import ModelKind
from perennial_steps.evaluation.metrics import Floats, Groups, group_ends, roc_auc
from perennial_steps.evaluation.ranking import curve, mean_over_lists

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 500
"""Of a curve: more cannot be seen."""
MAX_PLACES = 20
"""Of a ranking: few people look further."""


def draw(file: Path, title: str, paint: Any, left: float = 0.12) -> None:
    """Write a figure to `file`; `paint` gets its axes. `left` is the room for the labels of the vertical axis, as a share."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5))  # laid out by hand: a layout engine takes three times as long
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left, 0.12, 0.96 - left, 0.8))
    paint(axes)
    axes.set_title(title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def draw_quality(
    folder: Path, kind: ModelKind, label: Floats, scores: Mapping[str, Floats], group: Groups | None
) -> None:
    """What shows how good a model of this kind is, on the holdout, by model.

    Args:
        folder: one or two PNG files are written below it.
        group: int64[rows], the lists of a ranker.
    """
    if kind == "xgboost.classifier":
        draw_roc(folder / "roc.png", label, scores)
        draw_calibration(folder / "calibration.png", label, scores)
    elif group is not None:
        draw_ranking(folder / "ranking.png", label, scores, group)
    else:
        draw_fit(folder / "fit.png", label, scores)


def draw_ranking(file: Path, label: Floats, scores: Mapping[str, Floats], group: Groups) -> None:
    """Mean NDCG of the first places against how many places are looked at (rankers)."""
    longest = int(np.diff(group_ends(group), prepend=-1).max())
    most = min(longest, MAX_PLACES)

    def paint(axes: Axes) -> None:
        for name, score in scores.items():
            whole = mean_over_lists("ndcg", label, score, group)
            axes.plot(range(1, most + 1), curve(label, score, group, most), "o-", label=f"{name} (NDCG {whole:.3f})")
        axes.set(xlabel="places", ylabel="mean NDCG")
        axes.legend(loc="lower right")

    draw(file, "NDCG on the holdout", paint)


def draw_roc(file: Path, label: Floats, scores: Mapping[str, Floats]) -> None:
    """ROC curves by model."""

    def paint(axes: Axes) -> None:
        for name, score in scores.items():
            false, true = roc_curve(label, score)
            axes.plot(false, true, label=f"{name} (AUC {roc_auc(label, score):.3f})")
        axes.plot([0, 1], [0, 1], ":", color="grey")
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        axes.legend(loc="lower right")

    draw(file, "ROC on the holdout", paint)


def draw_calibration(file: Path, label: Floats, scores: Mapping[str, Floats]) -> None:
    """Observed share of positives against predicted probability, by deciles of the prediction."""

    def paint(axes: Axes) -> None:
        for name, score in scores.items():
            predicted, observed = calibration_curve(label, score)
            axes.plot(predicted, observed, "o-", label=name)
        axes.plot([0, 1], [0, 1], ":", color="grey")
        axes.set(xlabel="predicted probability", ylabel="observed share")
        axes.legend(loc="upper left")

    draw(file, "Calibration on the holdout", paint)


def draw_fit(file: Path, label: Floats, scores: Mapping[str, Floats]) -> None:
    """Observed against predicted values (regressors)."""

    def paint(axes: Axes) -> None:
        picked = np.linspace(0, len(label) - 1, min(len(label), 4 * MAX_POINTS)).astype(np.int64)
        for name, score in scores.items():
            axes.plot(score[picked], label[picked], ".", markersize=2, label=name)
        axes.axline((float(label.mean()), float(label.mean())), slope=1, ls=":", color="grey")
        axes.set(xlabel="predicted", ylabel="observed")
        axes.legend(loc="upper left")

    draw(file, "Fit on the holdout", paint)


def draw_importance(file: Path, gains: Mapping[str, float], most: int = 20) -> None:
    """Share of the total gain by feature."""
    total = sum(gains.values()) or 1.0
    ordered = sorted(gains.items(), key=lambda item: item[1])[-most:]

    def paint(axes: Axes) -> None:
        axes.barh([_short(name) for name, _ in ordered], [gain / total for _, gain in ordered])
        axes.set(xlabel="share of the total gain")

    draw(file, "Importance", paint, left=0.34)


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def roc_curve(label: Floats, score: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates, rising, at most `MAX_POINTS` of them."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.concatenate([[0.0], np.cumsum(label[order])[ends]])
    false = np.concatenate([[0.0], (ends + 1) - true[1:]])
    picked = np.unique(np.linspace(0, len(true) - 1, min(len(true), MAX_POINTS)).astype(np.int64))
    return false[picked] / max(false[-1], 1.0), true[picked] / max(true[-1], 1.0)


def calibration_curve(label: Floats, score: Floats, bins: int = 10) -> tuple[Floats, Floats]:
    """Mean prediction and share of positives in bins of equal count."""
    parts = [part for part in np.array_split(np.argsort(score, kind="stable"), bins) if len(part)]
    return np.array([score[part].mean() for part in parts]), np.array([label[part].mean() for part in parts])
