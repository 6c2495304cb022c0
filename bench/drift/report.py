"""Shares of windows, as the section `drift` of bench/results.md."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

Found = dict[str, list[list[str]]]
"""By case, the features called drifted in each window."""
TITLES = {"evidently": "Evidently 0.7", "nannyml": "NannyML 0.13"}
ALLOWED = 1 / 200
"""Quiet windows with an alarm, of all."""
SURE = 0.9
"""Share of windows in which a drift must be found to count as found."""


@dataclass(frozen=True)
class Row:
    """One case, judged by all."""

    kind: str
    grade: str
    rows: int
    moved: str | None
    """The feature that has moved; None where it may be any."""
    found: dict[str, list[list[str]]]
    """By judge and window, the features called drifted."""

    def share(self, judge: str) -> float:
        """Windows in which the moved feature, or any, is called drifted."""
        windows = self.found[judge]
        return sum(bool(names) if self.moved is None else self.moved in names for names in windows) / len(windows)


def section(rows: Sequence[Row], command: str, agrees: bool) -> str:
    """The whole section."""
    judges = list(rows[0].found)
    counts = f"{max(len(row.found[judges[0]]) for row in rows)} quiet windows of 200, 1,000 and 10,000 flights"
    lines = [
        "## drift",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores. {counts}, and windows of which one feature has moved, drawn "
        "from the flights of 2013 outside of a reference of 50,000; 20 features. The rules are the files of monitoring/rules, replayed by "
        "promtool, all features judged and min_rows 50. `psi 0.2` is the spec's default; at `psi 0.01` only the limit of chance holds "
        "false alarms back. Evidently: the tests of DataDriftPreset by default, any column; NannyML: UnivariateDriftCalculator by "
        "default, the window is the chunk.",
        "",
        "### Quiet windows with a false alarm, of all; columns falsely called drifted per window",
        "",
        *_head(["rows", *judges]),
    ]
    quiet = [row for row in rows if row.kind == "quiet"]
    for row in quiet:
        cells = [f"{_alarms(row, judge)} ({_columns(row, judge):.2f})" for judge in judges]
        lines.append(_line(f"{row.rows:,}", cells))
    lines += ["", f"### Rows until the moved feature is found in {SURE:.0%} of the windows", ""]
    lines += [
        f"{len(next(row for row in rows if row.moved).found[judges[0]])} windows of each size and grade; "
        "only the feature that has moved counts. "
        f"In brackets: also found, but at a size at which more than 1 of 200 quiet windows alarms falsely. `-`: not found with "
        f"{max(row.rows for row in rows):,} rows.",
        "",
        *_head(["what has moved", *judges]),
    ]
    for kind, grade in dict.fromkeys((row.kind, row.grade) for row in rows if row.moved):
        these = [row for row in rows if (row.kind, row.grade) == (kind, grade)]
        lines.append(_line(f"{WORDS[kind]} {grade}", [_until(these, quiet, judge) for judge in judges]))
    lines += [
        "",
        "### Months beside January and February, windows of 1,000 flights called drifted",
        "",
        *_head(["month", *judges]),
    ]
    lines += [
        _line(row.grade, [f"{row.share(judge):.0%} ({_columns(row, judge):.1f})" for judge in judges])
        for row in rows
        if row.kind == "month"
    ]
    lines += ["", "In brackets: columns called drifted per window, of 20.", "", *_verdict(rows, quiet, judges)]
    lines += [
        "",
        f"Evidently's whole report on one of the windows names the same columns: {'yes' if agrees else 'NO'}.",
    ]
    return "\n".join(lines) + "\n"


WORDS = {
    "shift": "temperature, shifted by",
    "category": "carrier, made UA in",
    "missing": "planned minutes, missing in",
    "unseen": "carrier, never seen in",
}


def until(these: Sequence[Row], judge: str) -> Row | None:
    """The fewest rows from which on the drift is found."""
    found = None
    for row in sorted(these, key=lambda row: row.rows, reverse=True):
        if row.share(judge) < SURE:
            break
        found = row
    return found


def is_quiet(quiet: Sequence[Row], rows: int, judge: str) -> bool:
    """Whether false alarms of windows of that size are as rare as they must be."""
    return next(row.share(judge) for row in quiet if row.rows == rows) <= ALLOWED


def _until(these: Sequence[Row], quiet: Sequence[Row], judge: str) -> str:
    found = until(these, judge)
    if found is None:
        return "-"
    return f"{found.rows:,}" if is_quiet(quiet, found.rows, judge) else f"({found.rows:,})"


def _honest(these: Sequence[Row], quiet: Sequence[Row], judge: str) -> int | None:
    """The fewest rows at which a drift is found by a judge that is quiet there."""
    sizes = [row.rows for row in these if row.share(judge) >= SURE and is_quiet(quiet, row.rows, judge)]
    return min(sizes, default=None)


def _verdict(rows: Sequence[Row], quiet: Sequence[Row], judges: Sequence[str]) -> list[str]:
    said = []
    for ours in judges[:2]:
        held = all(row.share(ours) <= ALLOWED for row in quiet)
        later = []
        for kind, grade in dict.fromkeys((row.kind, row.grade) for row in rows if row.moved):
            these = [row for row in rows if (row.kind, row.grade) == (kind, grade)]
            mine = _honest(these, quiet, ours)
            for peer in judges[2:]:
                theirs = _honest(these, quiet, peer)
                if theirs is not None and (mine is None or mine > theirs):
                    later.append(f"{WORDS[kind]} {grade} ({peer} at {theirs:,})")
        said.append(
            f"{ours}: at most 1 false alarm in 200 windows: {'held' if held else 'missed'}; "
            "no later than either peer where that one is quiet: "
            + ("held." if not later else f"missed for {'; '.join(later)}.")
        )
    return ["Targets. " + " ".join(said)]


def _alarms(row: Row, judge: str) -> str:
    windows = len(row.found[judge])
    return f"{row.share(judge) * windows:.0f} of {windows}"


def _columns(row: Row, judge: str) -> float:
    return sum(map(len, row.found[judge])) / len(row.found[judge])


def _head(columns: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "| --- |" + " ---: |" * (len(columns) - 1)]


def _line(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"
