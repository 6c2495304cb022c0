"""Two pictures: estimated and true quality by week, and what a label costs by day."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.quality.days import Day
from bench.quality.flights import Week

FOLDER = Path(__file__).parents[1] / "plots"
TRUE, OURS, PEER = "#333333", "#c0392b", "#2c5f8a"


def weeks(found: Sequence[Week]) -> Path:
    figure = _figure(8, 5.2)
    at = [week.begins for week in found]
    upper = figure.add_axes((0.09, 0.55, 0.88, 0.38))
    upper.plot(at, [week.true["roc_auc"] for week in found], color=TRUE, linewidth=1.6, label="true, once labels came")
    upper.plot(at, [week.ours["roc_auc"] for week in found], color=OURS, label="Perennial, before")
    upper.plot(at, [week.nannyml for week in found], color=PEER, linewidth=1, label="NannyML")
    upper.plot(
        at,
        [week.nannyml_rolling for week in found],
        color=PEER,
        linewidth=1,
        linestyle=":",
        label="NannyML, fitted anew every week",
    )
    upper.set_ylabel("ROC AUC")
    upper.legend(fontsize=7, frameon=False)
    upper.set_title("Flights of 2013, by week; the model is of January to March")
    lower = figure.add_axes((0.09, 0.08, 0.88, 0.38))
    lower.plot(at, [week.true["log_loss"] for week in found], color=TRUE, linewidth=1.6)
    lower.plot(at, [week.ours["log_loss"] for week in found], color=OURS)
    lower.set_ylabel("log loss")
    return _save(figure, FOLDER / "quality-estimate.svg")


def days(found: Sequence[Day]) -> Path:
    figure = _figure(8, 3.8)
    panels = {
        "refresh, ms": [day.refresh * 1000 for day in found],
        "resident, MB": [day.resident for day in found],
    }
    for place, (name, values) in enumerate(panels.items()):
        axes = figure.add_axes((0.09, 0.55 - 0.44 * place, 0.88, 0.36))
        axes.plot(range(1, len(values) + 1), values, color=OURS, linewidth=1)
        axes.set_ylim(0, max(values) * 1.15)
        axes.set_ylabel(name, fontsize=8)
    figure.axes[0].set_title("A refresh after one more micro-batch, and memory, by day")
    figure.axes[-1].set_xlabel("day")
    return _save(figure, FOLDER / "quality-days.svg")


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure


def _save(figure: Any, file: Path) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    return file
