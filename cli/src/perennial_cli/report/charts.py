"""The plots of a report, as SVG for use within a page: colours are the page's, so that they follow light and dark.

Each is drawn twice, for a wide and for a narrow screen: text that is scaled down with a picture cannot be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from perennial_cli.clients.prometheus import Series
from perennial_cli.report.model import Fired, Mark, Report
from perennial_spec import names

_INK, _FAINT, _MARK, _LIMIT = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#010201", "#010202", "#010203", "#010204", "#010205", "#010206")
_HEAT = ("#010301", "#010302", "#010303", "#010304", "#010305")
COLOURS = {
    _INK: "ink",
    _FAINT: "faint",
    _MARK: "mark",
    _LIMIT: "limit",
    **{colour: f"s{place}" for place, colour in enumerate(_SERIES)},
    **{colour: f"h{place}" for place, colour in enumerate(_HEAT)},
}
"""What is drawn in each colour here has the page's colour of that name there."""
HEAT = ("below half", "half to threshold", "1 to 2 times", "2 to 5 times", "above 5 times")
_HEAT_BOUNDS = (0.5, 1.0, 2.0, 5.0)
_WIDTHS = {"wide": 9.4, "narrow": 3.9}
"""Inches of 96 CSS pixels."""
MOST_FEATURES = 60

Draw = Callable[[Any, Report, bool], None]


@dataclass(frozen=True)
class _Words:
    id: str
    title: str
    unit: str
    alt: str
    """For who cannot see it."""


@dataclass(frozen=True)
class Chart(_Words):
    """A plot in both widths."""

    wide: str
    """SVG."""
    narrow: str


def charts(report: Report) -> tuple[Chart, ...]:
    """All plots for which there is anything to draw."""
    return tuple(_charts(report))


def _charts(report: Report) -> Iterator[Chart]:
    features, kinds = len(_by_drift(report)), len({alert.name for alert in report.alerts})
    if features:
        unit = "population stability index, in multiples of the threshold"
        words = _Words("drift", "Drift by feature", unit, _alt_drift(report))
        yield _chart(words, report, _draw_drift, 0.9 + 0.21 * features)
    if report.quality:
        words = _Words("quality", "Quality on labels that have come", report.metric, _alt_quality(report))
        yield _chart(words, report, _draw_quality, 2.6)
    if report.routes:
        words = _Words("routes", "Traffic by version", "share of the traffic, %", _alt_routes(report))
        yield _chart(words, report, _draw_routes, 2.1)
    if report.requests:
        words = _Words("requests", "Requests", "requests per second", _alt_requests(report))
        yield _chart(words, report, _draw_requests, 2.1)
    if kinds:
        words = _Words("alerts", "Alerts that fired", "red: critical", _alt_alerts(report))
        yield _chart(words, report, _draw_alerts, 0.8 + 0.26 * kinds)


def _chart(words: _Words, report: Report, draw: Draw, height: float) -> Chart:
    wide, narrow = (_svg(words.id, report, draw, height, width) for width in _WIDTHS)
    return Chart(words.id, words.title, words.unit, words.alt, wide, narrow)


def _svg(id: str, report: Report, draw: Draw, height: float, width: str) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    prefix, narrow = f"{id}-{width}", width == "narrow"
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": prefix,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.parse_math": False,  # names are the users': a dollar sign is a dollar sign
        "text.color": _INK,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "grid.color": _FAINT,
        "grid.linewidth": 0.5,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTHS[width], height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        draw(axes, report, narrow)
        _time_axis(axes, report, narrow)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _for_page(text.getvalue(), prefix)


def _for_page(svg: str, prefix: str) -> str:
    """Without its head and metadata; ids that no other picture has; colours by the page's names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", svg)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would be for the whole page
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, name in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg ", '<svg role="img" aria-hidden="true" ', 1)


def _time_axis(axes: Any, report: Report, narrow: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=6 if narrow else 9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlim(report.span.start, report.span.end)


# -- drift --


def _by_drift(report: Report) -> list[Series]:
    """The features that moved most come first; the predictions are last."""
    found = [series for series in report.drift if series.points]
    found.sort(key=lambda series: -max(value for _, value in series.points))
    inputs = [series for series in found if series.labels.get("feature") != names.PREDICTION_FEATURE]
    return inputs[:MOST_FEATURES] + [series for series in found if series not in inputs]


def _draw_drift(axes: Any, report: Report, narrow: bool) -> None:
    from matplotlib.patches import Patch

    rows, step = _by_drift(report), report.span.step.total_seconds()
    for place, series in enumerate(rows):
        for level, spans in _levels(series, report.threshold or 1.0, step).items():
            days = [(start / 86_400, width / 86_400) for start, width in spans]
            axes.broken_barh(days, (place - 0.46, 0.92), facecolors=_HEAT[level], linewidth=0)
    most = 15 if narrow else 34
    axes.set_yticks(range(len(rows)), [_feature(series.labels.get("feature", ""), report, most) for series in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis_date(tz=UTC)
    _marks(axes, report.marks)
    keys = [Patch(color=colour, label=text) for colour, text in zip(_HEAT, HEAT, strict=True)]
    axes.legend(
        handles=keys,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=2 if narrow else 5,
        columnspacing=1,
        handlelength=1,
    )


def _feature(name: str, report: Report, most: int) -> str:
    text = "predictions" if name == names.PREDICTION_FEATURE else name
    text = text if len(text) <= most else text[: most - 1] + "…"
    return f"{text} (ignored)" if name in report.ignored and most > 20 else text


def _levels(series: Series, threshold: float, step: float) -> dict[int, list[tuple[float, float]]]:
    """`(start, width)` in seconds of the unbroken stretches of each level; a point stands for the step before it."""
    found: dict[int, list[tuple[float, float]]] = {}
    last: tuple[int, float] | None = None
    for at, value in series.points:
        level = sum(value / threshold >= bound for bound in _HEAT_BOUNDS)
        spans = found.setdefault(level, [])
        if last is not None and last[0] == level and at - last[1] <= 1.5 * step:
            spans[-1] = (spans[-1][0], at - spans[-1][0])
        else:
            spans.append((at - step, step))
        last = (level, at)
    return found


def _alt_drift(report: Report) -> str:
    over = {
        str(series.labels.get("feature")): max(value for _, value in series.points)
        for series in _by_drift(report)
        if max(value for _, value in series.points) > (report.threshold or 0)
    }
    told = ", ".join(f"{feature} {value:.2f}" for feature, value in list(over.items())[:8])
    return f"Largest PSI of features above the threshold of {report.threshold:g}: {told or 'none'}."


# -- the others --


def _draw_quality(axes: Any, report: Report, narrow: bool) -> None:
    low = {series.labels.get("version"): dict(series.points) for series in report.quality_low}
    high = {series.labels.get("version"): dict(series.points) for series in report.quality_high}
    for place, series in enumerate(_by_version(report.quality)):
        version, colour = series.labels.get("version"), _SERIES[place % len(_SERIES)]
        axes.plot(_times(series), _values(series), color=colour, linewidth=1.8, label=f"version {version}")
        both = [at for at, _ in series.points if at in low.get(version, {}) and at in high.get(version, {})]
        if both:
            times = [datetime.fromtimestamp(at, UTC) for at in both]
            bounds = [low[version][at] for at in both], [high[version][at] for at in both]
            axes.fill_between(times, *bounds, color=colour, alpha=0.2, linewidth=0)
    if report.quality_limit is not None:
        axes.axhline(
            report.quality_limit, color=_LIMIT, linewidth=1.2, linestyle="--", label=f"limit {report.quality_limit:g}"
        )
    axes.set_ylabel(report.metric)
    axes.grid(axis="y")
    _marks(axes, report.marks)
    _legend(axes, narrow)


def _draw_routes(axes: Any, report: Report, narrow: bool) -> None:
    series = _by_version(report.routes)
    times = sorted({at for each in series for at, _ in each.points})
    shares = [[dict(each.points).get(at, 0.0) * 100 for at in times] for each in series]
    labels = [f"version {each.labels.get('version')}" for each in series]
    colours = [_SERIES[place % len(_SERIES)] for place in range(len(series))]
    axes.stackplot(
        [datetime.fromtimestamp(at, UTC) for at in times],
        shares,
        labels=labels,
        colors=colours,
        step="pre",
        linewidth=0,
        alpha=0.75,
    )
    axes.set_ylim(0, 100)
    axes.set_ylabel("share, %")
    _marks(axes, report.marks, _INK)
    _legend(axes, narrow)


def _draw_requests(axes: Any, report: Report, narrow: bool) -> None:
    colours = {"answered": _SERIES[0], "refused": _SERIES[3], "failed": _LIMIT}
    for series in report.requests:
        kind = series.labels.get("kind", "")
        axes.plot(_times(series), _values(series), color=colours.get(kind, _INK), linewidth=1.6, label=kind)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("per second")
    axes.grid(axis="y")
    _marks(axes, report.marks)
    _legend(axes, narrow)


def _draw_alerts(axes: Any, report: Report, narrow: bool) -> None:
    kinds = list(dict.fromkeys(alert.name for alert in report.alerts))
    for place, kind in enumerate(kinds):
        for alert in (alert for alert in report.alerts if alert.name == kind):
            colour = _LIMIT if alert.severity == "critical" else _MARK
            axes.broken_barh([_bar(alert, report)], (place - 0.3, 0.6), facecolors=colour, linewidth=0)
    axes.set_yticks(range(len(kinds)), [kind.removeprefix("Perennial") for kind in kinds])
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis_date(tz=UTC)
    axes.grid(axis="x")


def _bar(alert: Fired, report: Report) -> tuple[float, float]:
    """Start and width in days; a short alert is as wide as can be seen."""
    start, end = alert.start.timestamp(), (alert.end or report.span.end).timestamp()
    least = (report.span.end - report.span.start).total_seconds() / 150
    return start / 86_400, max(end - start, least) / 86_400


def _marks(axes: Any, marks: Sequence[Mark], colour: str = _MARK) -> None:
    for mark in marks:
        axes.axvline(mark.at, color=colour, linewidth=1.1, linestyle=(0, (4, 2)), gid=f"retraining-{mark.text[1:]}")
        axes.annotate(
            mark.text,
            (mark.at, 0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )


def _legend(axes: Any, narrow: bool) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3 if narrow else 8, columnspacing=1.2, handlelength=1.4
    )


def _by_version(series: Sequence[Series]) -> list[Series]:
    def number(each: Series) -> tuple[int, str]:
        text = each.labels.get("version", "")
        return (int(text) if text.isdecimal() else 0, text)

    return sorted(series, key=number)


def _times(series: Series) -> list[datetime]:
    return [datetime.fromtimestamp(at, UTC) for at, _ in series.points]


def _values(series: Series) -> list[float]:
    return [value for _, value in series.points]


def _alt_quality(report: Report) -> str:
    told = ", ".join(f"version {s.labels.get('version')}: {s.points[-1][1]:.3f}" for s in _by_version(report.quality))
    limit = f" The limit is {report.quality_limit:g}." if report.quality_limit is not None else ""
    return f"{report.metric} at last: {told}.{limit} {len(report.marks)} retrainings are marked."


def _alt_routes(report: Report) -> str:
    end = max(series.points[-1][0] for series in report.routes)
    told = [f"version {s.labels.get('version')} {s.points[-1][1]:.0%}" for s in report.routes if s.points[-1][0] == end]
    return f"Traffic at last: {', '.join(told)}."


def _alt_requests(report: Report) -> str:
    told = ", ".join(f"{s.labels.get('kind')} {max(_values(s)):.3g}" for s in report.requests)
    return f"Most requests per second: {told}."


def _alt_alerts(report: Report) -> str:
    counts: dict[str, int] = {}
    for alert in report.alerts:
        counts[alert.name] = counts.get(alert.name, 0) + 1
    return "How often each fired: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "."
