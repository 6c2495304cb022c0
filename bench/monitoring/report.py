"""What monitoring costs, as the section `monitoring` of bench/results.md."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from bench.monitoring.counting import Counting
from bench.monitoring.reference import FEATURES, Costs
from bench.monitoring.rules import REPLICAS, Evaluated
from bench.serving.report import processor

ADDED, REFERENCE_SECONDS, SHARE = 0.05, 0.5, 1 / 3
"""Targets: what counting may add to a request, what a reference may take, what rules may take of their interval."""


@dataclass
class Measured:
    """None: not asked for."""

    counting: Counting | None = None
    reference: Costs | None = None
    rules: Evaluated | None = None
    peer_fault: str = ""


def section(found: Measured, command: str) -> str:
    """The whole section."""
    lines = [
        "## monitoring",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({processor()}); medians.",
        "",
    ]
    if found.counting is not None:
        lines += [*_counting(found.counting), ""]
    if found.reference is not None:
        lines += [*_reference(found.reference, found.peer_fault), ""]
    if found.rules is not None:
        lines += [*_rules(found.rules), ""]
    return "\n".join(lines)


def _counting(found: Counting) -> list[str]:
    lines = [
        "### Counting bins, and values out of range, us per request",
        "",
        "| rows | without | with | added | of that, counting itself | target |",
        "| ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for rows, without in found.without.items():
        ratios = [one / other - 1 for one, other in zip(found.with_bins[rows], without, strict=True)]
        added, alone = median(ratios), median(found.bins_alone[rows])
        lines.append(
            f"| {rows} | {median(without):.1f} | {median(found.with_bins[rows]):.1f} | {added:.1%} | "
            f"{alone:.2f} us, {alone / median(without):.1%} | at most {ADDED:.0%}: {_held(added <= ADDED)} |"
        )
    return [
        *lines,
        "",
        "The server's own path from the bytes of a request to the bytes of its answer, in one process, without sockets and without "
        "the prediction log: over HTTP, counting is a smaller share. 300 trees of depth 6, 23 features, one request per turn of the "
        "event loop. Both ways in turn; the median of the ratios of neighbours.",
    ]


def _reference(found: Costs, fault: str) -> list[str]:
    built = median(found.reference)
    lines = [
        f"### Reference of {found.rows:,} rows and {FEATURES} features, seconds",
        "",
        f"Building it {built:.3f} (target at most {REFERENCE_SECONDS}: {_held(built <= REFERENCE_SECONDS)}); counting as many new "
        f"rows into its bins, as the server does, {median(found.counting):.3f}; PSI of all features {median(found.psi):.4f}.",
    ]
    if found.peer is None:
        return [*lines, "", f"Evidently was not measured{f': {fault}' if fault else ''}."]
    ours = built + median(found.counting) + median(found.psi)
    alike = f"{found.peer['seconds'] / ours:.0f} times ours, {ours:.2f} s"
    fewer = f"; on {found.peer_rows:,} rows" if found.peer_rows != found.rows else ""
    return [
        *lines,
        "",
        f"Evidently's data drift report by PSI of two such frames{fewer}: {found.peer['seconds']:.1f} s and "
        f"{found.peer['mb'] / 1000:.2f} GB{f', {alike}' if not fewer else ''}.",
    ]


def _rules(found: Evaluated) -> list[str]:
    share, group = max((median(seconds) / found.intervals[name], name) for name, seconds in found.durations.items())
    lines = [
        f"### Rules for {found.pipelines} pipelines of {found.features} features with 10 bins, {REPLICAS} replicas, seconds",
        "",
        "| group | interval | evaluation, median | longest | share of the interval |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, seconds in sorted(found.durations.items(), key=lambda item: -median(item[1])):
        interval = found.intervals[name]
        lines.append(
            f"| {name} | {interval:g} | {median(seconds):.3f} | {max(seconds):.3f} | {median(seconds) / interval:.1%} |"
        )
    return [
        *lines,
        "",
        f"The slowest, {group}, takes {share:.0%} of its interval (target at most a third: {_held(share <= SHARE)}); "
        f"{found.missed:.0f} evaluations were missed. Prometheus used {found.cores:.2f} cores with scraping, "
        f"{found.memory / 1e9:.2f} GB and {found.series:,.0f} series; the slowest scrape took {found.scrape:.2f} s; {found.alerts} "
        "alerts of drift fired. A real Prometheus with a past of a day, scraping the server's own exposition from replicas whose "
        "counters a clock moves, on the same cores.",
    ]


def _held(held: bool) -> str:
    return "held" if held else "missed"
