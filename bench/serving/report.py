"""Medians over the rounds, as the section `serving` of bench/results.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.serving.load import Cell, Paced
from bench.serving.process import Weight
from bench.serving.servers import REFERENCE, SERVERS, Server

RESULTS = Path(__file__).parents[1] / "results.md"
Key = tuple[int, int]
"""Connections, rows."""
SATURATED: Key = (32, 1)
SHORT = 0.9
"""A server that used less of its core than this was waiting for the load generator: its rate is a lower bound."""


@dataclass
class Measured:
    """Everything about one server, round by round."""

    cells: dict[Key, list[Cell]] = field(default_factory=dict)
    paced: list[Paced] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    """Seconds from the start to the first answer."""

    def add(self, cell: Cell) -> None:
        self.cells.setdefault((cell.connections, cell.rows), []).append(cell)

    def cell(self, key: Key, what: str) -> float | None:
        """The median of one figure of one cell."""
        found = self.cells.get(key)
        return median(getattr(cell, what) for cell in found) if found else None

    def pace(self, what: str) -> float | None:
        return median(getattr(each, what) for each in self.paced) if self.paced else None

    def weight(self, what: str) -> float | None:
        return median(getattr(each, what) for each in self.weights) if self.weights else None


Results = Mapping[str, Measured]


def ratio(results: Results, name: str, key: Key, to: str) -> float | None:
    """How many times the requests per second of server `to`: the median over the rounds of each round's ratio."""
    ours, theirs = (results[each].cells.get(key, []) if each in results else [] for each in (name, to))
    pairs = [cell.rate / other.rate for cell, other in zip(ours, theirs, strict=False)]
    return median(pairs) if pairs else None


def best_product(results: Results, key: Key) -> str | None:
    """The fastest of other people's servers."""
    rates = {
        each.name: rate
        for each in SERVERS
        if each.kind == "product" and each.name in results and (rate := results[each.name].cell(key, "rate"))
    }
    return max(rates, key=lambda name: rates[name]) if rates else None


def section(results: Results, command: str, skipped: Sequence[str], rounds: int) -> str:
    """The whole section."""
    keys = sorted({key for each in results.values() for key in each.cells}, key=lambda key: (key[1], key[0]))
    lines = [
        "## serving",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({processor()}); server on core 0, `wrk` on core 1; "
        f"{rounds} round{'s' if rounds > 1 else ''} over all servers in turn, each started fresh; medians. 300 trees of depth 6, "
        "23 features, JSON, different rows in every request.",
        "",
    ]
    for rows in sorted({rows for _, rows in keys}):
        lines += [f"### {rows} row{'s' if rows > 1 else ''} per request, requests per second", ""]
        lines += [*_throughput(results, [key for key in keys if key[1] == rows]), ""]
        lines += [f"### {rows} row{'s' if rows > 1 else ''} per request, latency p50 / p99, ms", ""]
        lines += [*_latency(results, [key for key in keys if key[1] == rows]), ""]
    lines += ["### At half of the saturating load, and memory", "", *_half(results), "", *_notes(results), ""]
    lines += [f"Left out: {reason}" for reason in skipped]
    return "\n".join(lines).rstrip() + "\n"


def _measured(results: Results) -> list[tuple[Server, Measured]]:
    return [(server, results[server.name]) for server in SERVERS if server.name in results]


def _throughput(results: Results, keys: list[Key]) -> list[str]:
    top = keys[-1]
    heads = [f"{connections} connections" if connections > 1 else "1 connection" for connections, _ in keys]
    columns = ["server", *heads, f"to {REFERENCE}", "share of C hello", "CPU us per request", "core used"]
    lines = _head(columns)
    for server, found in _measured(results):
        values = [_number(found.cell(key, "rate")) for key in keys]
        to, share = ratio(results, server.name, top, REFERENCE), ratio(results, server.name, top, "c-hello")
        busy = found.cell(top, "busy")
        values += [_times(to), _percent(share), _number(found.cell(top, "cpu"), 1), _percent(busy)]
        lines.append(_row(_title(server), values))
    return lines


def _latency(results: Results, keys: list[Key]) -> list[str]:
    heads = [f"{connections} connections" if connections > 1 else "1 connection" for connections, _ in keys]
    lines = _head(["server", *heads])
    for server, found in _measured(results):
        both = [f"{_ms(found.cell(key, 'p50'))} / {_ms(found.cell(key, 'p99'))}" for key in keys]
        lines.append(_row(_title(server), both))
    return lines


def _half(results: Results) -> list[str]:
    columns = [
        "server",
        "requests per second",
        "p50, ms",
        "p99, ms",
        "p99.9, ms",
        "RSS, MB",
        "PSS, MB",
        "processes",
        "start, s",
    ]
    lines = _head(columns)
    for server, found in _measured(results):
        paced = [_ms(found.pace(what)) for what in ("p50", "p99", "p999")]
        weights = [_number(found.weight(what)) for what in ("rss", "pss", "processes")]
        started = f"{median(found.started):.1f}" if found.started else "-"
        lines.append(_row(_title(server), [_number(found.pace("rate")), *paced, *weights, started]))
    return lines


def _notes(results: Results) -> list[str]:
    notes = [
        "Ours gets 23 input columns, checks them, runs the pipeline's feature code (three features are computed), counts drift bins and "
        "latencies, follows the route and writes every prediction to the log; the others get finished features and do none of it. "
        "Some answers of every server were compared with XGBoost's before anything was timed.",
        "Half of the saturating load: Poisson arrivals on a schedule drawn beforehand, 32 connections; latency counts from the "
        "scheduled time, so a slow answer makes the requests behind it late too.",
        f"Where less than {SHORT:.0%} of the core is used, the load generator was the limit; CPU per request tells such servers apart.",
    ]
    foreign = [cell.others for found in results.values() for cells in found.cells.values() for cell in cells]
    if foreign:
        notes.append(
            f"Other processes of this machine used {median(foreign):.2f} cores meanwhile (median of all cells; at most {max(foreign):.2f})."
        )
    failed = [
        f"{server.title}: {sum(each.failed for each in found.paced)} requests failed on the schedule."
        for server, found in _measured(results)
        if any(each.failed for each in found.paced)
    ]
    return [line for note in [*notes, *failed, *_targets(results)] for line in (note, "")]


def _targets(results: Results) -> list[str]:
    if "ours" not in results or REFERENCE not in results:
        return []
    best = best_product(results, SATURATED)
    ours = results["ours"]
    hundred: Key = (32, 100)
    checks = [
        ("single rows, times mlflow", ratio(results, "ours", SATURATED, REFERENCE), 200.0, False),
        (f"single rows, times the best product ({best})", ratio(results, "ours", SATURATED, best or ""), 25.0, False),
        ("100 rows, times mlflow", ratio(results, "ours", hundred, REFERENCE), 30.0, False),
        ("p99 at half load, ms", (found := ours.pace("p99")) and found / 1000, 1.5, True),
        ("memory (PSS), MB", ours.weight("pss"), 150.0, True),
    ]
    said = [
        f"{what}: {value:.1f} (target {'at most' if most else 'at least'} {target:g}: "
        f"{'held' if (value <= target if most else value >= target) else 'missed'})"
        for what, value, target, most in checks
        if value is not None
    ]
    return ["Targets. " + "; ".join(said) + "."] if said else []


def write_section(name: str, text: str, file: Path = RESULTS) -> None:
    """Replace the section `## name` of the results, or add it at the end; the others stay as they are."""
    whole = file.read_text() if file.exists() else "# Results\n"
    parts = whole.split("\n## ")
    kept = [part.rstrip() for part in parts if part.split("\n", 1)[0].strip() != name]
    place = next((i for i, part in enumerate(parts) if part.split("\n", 1)[0].strip() == name), len(kept))
    kept.insert(place, text.removeprefix("## ").rstrip())
    file.write_text("\n\n## ".join(kept) + "\n")


def _title(server: Server) -> str:
    return f"**{server.title}**" if server.kind == "ours" else server.title


def _head(columns: list[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "| --- |" + " ---: |" * (len(columns) - 1)]


def _row(title: str, values: Sequence[str]) -> str:
    return f"| {title} | {' | '.join(values)} |"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value / 1000:.2f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "processor unknown"
