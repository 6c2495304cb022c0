"""Two pictures of the results: how fast, and how late. Drawn without pyplot: no global state, no display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.serving.report import SATURATED, Key, Results
from bench.serving.servers import SERVERS

FOLDER = Path(__file__).parents[1] / "plots"
COLOURS = {"ours": "#c0392b", "product": "#2c5f8a", "written": "#8fb3d1", "hello": "#bbbbbb"}


def draw(results: Results) -> list[Path]:
    """Write the plots; their files."""
    made = [_throughput(results, FOLDER / "serving-throughput.svg"), _latency(results, FOLDER / "serving-latency.svg")]
    return [file for file in made if file]


def _throughput(results: Results, file: Path) -> Path:
    keys: list[tuple[Key, str]] = [(SATURATED, "1 row per request"), ((32, 100), "100 rows per request")]
    figure = _figure(11, 4.6)
    for place, (key, title) in enumerate(keys):
        axes = figure.add_axes((0.28 + 0.37 * place, 0.12, 0.33, 0.78))
        _bars(axes, results, key)
        axes.set_title(f"{title}, 32 connections")
        axes.set_xlabel("requests per second")
        if place:
            axes.set_yticklabels([])
    return _save(figure, file)


def _bars(axes: Any, results: Results, key: Key) -> None:
    shown = [server for server in reversed(SERVERS) if server.name in results]
    rates = [results[server.name].cell(key, "rate") or 0.0 for server in shown]
    axes.barh(range(len(shown)), rates, color=[COLOURS[server.kind] for server in shown])
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [server.title.replace("`", "") for server in shown])
    low = min((rate for rate in rates if rate), default=1.0)
    axes.set_xlim(low / 2, max(rates, default=1.0) * 6)
    for place, rate in enumerate(rates):
        if rate:
            axes.text(rate * 1.1, place, f"{rate:,.0f}", va="center", fontsize=7)
    _plain(axes)


def _latency(results: Results, file: Path) -> Path:
    figure = _figure(8, 4.6)
    axes = figure.add_axes((0.39, 0.12, 0.58, 0.78))
    shown = [server for server in reversed(SERVERS) if server.name in results and results[server.name].paced]
    for place, server in enumerate(shown):
        found = results[server.name]
        low, mid, high = (found.pace(what) or 1.0 for what in ("p50", "p99", "p999"))
        axes.plot(
            [low / 1000, high / 1000], [place, place], color=COLOURS[server.kind], linewidth=4, solid_capstyle="butt"
        )
        axes.plot([mid / 1000], [place], "o", color=COLOURS[server.kind])
    axes.axvline(1.5, color="#c0392b", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [server.title.replace("`", "") for server in shown])
    axes.set_xlabel("ms: from p50 to p99.9, the dot is p99; dotted: 1.5 ms")
    axes.set_title("Latency at half of each server's saturating load")
    _plain(axes)
    return _save(figure, file)


def lines(file: Path, title: str, minutes: list[float], values: dict[str, list[float]]) -> Path:
    """Curves over time, one panel each."""
    figure = _figure(8, 2.2 * len(values) + 0.6)
    height = 0.84 / len(values)
    for place, (name, curve) in enumerate(values.items()):
        axes = figure.add_axes((0.1, 0.93 - height * (place + 1) + 0.07, 0.86, height - 0.1))
        axes.plot(minutes[: len(curve)], curve, color=COLOURS["ours"], linewidth=1)
        axes.set_ylim(0, max(curve, default=1.0) * 1.15)
        axes.set_ylabel(name)
        _plain(axes)
    figure.axes[0].set_title(title)
    figure.axes[-1].set_xlabel("minutes")
    return _save(figure, file)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _save(figure: Any, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    return file
