"""One picture: false alarms beside what is found, by rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.drift.report import Row

FILE = Path(__file__).parents[1] / "plots" / "drift-detection.svg"
COLOURS = ("#c0392b", "#e8998d", "#2c5f8a", "#8fb3d1")
PANELS = (
    ("quiet", "-", "nothing has moved: false alarms"),
    ("shift", "0.25 sd", "temperature, by 0.25 sd"),
    ("shift", "0.5 sd", "temperature, by 0.5 sd"),
    ("missing", "5%", "planned minutes, 5% missing"),
)


def draw(rows: Sequence[Row]) -> Path:
    """Write the plot; its file."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2))
    FigureCanvasSVG(figure)
    for place, (kind, grade, title) in enumerate(PANELS):
        axes = figure.add_axes((0.06 + 0.235 * place, 0.28, 0.2, 0.58))
        these = [row for row in rows if (row.kind, row.grade) == (kind, grade)]
        for judge, colour in zip(rows[0].found, COLOURS, strict=True):
            axes.plot(
                [row.rows for row in these], [100 * row.share(judge) for row in these], "o-", color=colour, label=judge
            )
        axes.set_xscale("log")
        axes.set_ylim(-5, 105)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("rows in the window", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if not place:
            axes.set_ylabel("windows called drifted, %", fontsize=8)
            figure.legend(loc="lower center", ncols=4, fontsize=8, frameon=False)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FILE, metadata={"Date": None})
    return FILE
