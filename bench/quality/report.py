"""The section `quality` of bench/results.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean

from bench.quality.days import BATCHES, ROWS, SHOWN, Day
from bench.quality.flights import Week
from bench.quality.million import MORE, Cost

RESULTS = Path(__file__).parents[1] / "results.md"
SECTION = "## quality"


def of_weeks(weeks: Sequence[Week]) -> list[str]:
    lines = [
        "| week | flights | ROC AUC | estimated | NannyML | NannyML, fitted anew | log loss | estimated |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for week in weeks[:: max(len(weeks) // 13, 1)]:
        auc = [week.true["roc_auc"], week.ours["roc_auc"], week.nannyml, week.nannyml_rolling]
        loss = [week.true["log_loss"], week.ours["log_loss"]]
        figures = " | ".join("-" if value is None else f"{value:.3f}" for value in (*auc, *loss))
        lines.append(f"| {week.begins:%-d %B} | {week.flights:,} | {figures} |")
    off = {
        "ours": _off(weeks, "roc_auc"),
        "NannyML's CBPE (reference: the last week of March)": _mean_off(weeks, [week.nannyml for week in weeks]),
        "NannyML's CBPE, fitted anew to the week before": _mean_off(weeks, [week.nannyml_rolling for week in weeks]),
    }
    last = [week.true["roc_auc"] for week in weeks]
    naive = mean(abs(now - before) for before, now in pairwise(last))
    lines += ["", f"Mean distance from the true ROC AUC over {len(weeks)} weeks:"]
    lines[-1] += " " + "; ".join(f"{name} {value:.4f}" for name, value in off.items())
    lines[-1] += f"; taking last week's ROC AUC for this week's {naive:.4f}."
    return [
        *lines,
        f"Of log loss, ours is off by {_off(weeks, 'log_loss'):.4f}, of the Brier score by {_off(weeks, 'brier'):.4f}.",
    ]


def _off(weeks: Sequence[Week], metric: str) -> float:
    return mean(abs(week.ours[metric] - week.true[metric]) for week in weeks)


def _mean_off(weeks: Sequence[Week], values: Sequence[float | None]) -> float:
    pairs = zip(values, weeks, strict=True)
    return mean(abs(value - week.true["roc_auc"]) for value, week in pairs if value is not None)


def of_days(days: Sequence[Day]) -> list[str]:
    lines = [
        "| day | commits to each table | labels in the window | a refresh after one more micro-batch, ms | a start, ms | resident, MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number in SHOWN:
        if number > len(days):
            break
        day = days[number - 1]
        figures = (
            f"{day.labels:,.0f}",
            f"{day.refresh * 1000:.1f}",
            f"{(day.start or 0) * 1000:.0f}",
            f"{day.resident:.0f}",
        )
        lines.append(f"| {number} | {number * BATCHES:,} | {' | '.join(figures)} |")
    return [
        *lines,
        "",
        f"{BATCHES} micro-batches a day, each of {ROWS} predictions and {ROWS} labels; the window is a week and six hours.",
    ]


def of_million(cost: Cost) -> list[str]:
    return [
        f"With {cost.rows:,} predictions and their labels in the window, a refresh after {MORE} more takes {cost.refresh * 1000:.0f} ms. "
        f"scikit-learn's ROC AUC, log loss and Brier score alone, on rows that are already joined, take {cost.sklearn * 1000:.0f} ms. "
        f"A start takes {cost.start:.1f} s. The exporter has {cost.resident:.0f} MB resident, {cost.before:.0f} MB of them before "
        "the first row.",
    ]


TITLES = {
    "flights": "### Estimated before the labels come, flights of 2013 by week",
    "days": "### One label on day 1 and on day 100",
    "million": "### A million predictions in the window",
}
PLOTS = {
    "flights": "![quality-estimate](plots/quality-estimate.svg)",
    "days": "![quality-days](plots/quality-days.svg)",
}
INTRODUCTION = """\
`python -m bench.quality`, 2 cores; last on {day}. The model is trained on January to March and asked about every later flight with an
outcome. At the end of each week none of its labels have come, and those of the week before have: ours is calibrated on them."""


def write(part: str, lines: Sequence[str]) -> None:
    """Put a part in its place; the other parts stay as they are."""
    text = RESULTS.read_text()
    before, _, rest = text.partition(f"\n{SECTION}\n")
    section, mark, after = rest.partition("\n## ")
    parts = {name: _between(section, title) for name, title in TITLES.items()}
    body = [
        title_line for name in TITLES for title_line in _part(name, "\n".join(lines) if name == part else parts[name])
    ]
    head = INTRODUCTION.format(day=f"{datetime.now(UTC):%Y-%m-%d}")
    whole = "\n".join([before.rstrip("\n"), "", SECTION, "", head, "", *body]).rstrip("\n") + "\n"
    RESULTS.write_text(whole + mark + after)


def _part(name: str, text: str) -> list[str]:
    if not text:
        return []
    plot = ["", PLOTS[name]] if name in PLOTS and PLOTS[name] not in text else []
    return [TITLES[name], "", text, *plot, ""]


def _between(section: str, title: str) -> str:
    _, _, rest = section.partition(f"{title}\n")
    return rest.partition("\n### ")[0].strip("\n")
