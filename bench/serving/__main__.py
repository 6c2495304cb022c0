"""Every model server in one interleaved run: `python -m bench.serving`, from the project's folder.

Each round starts every server in turn, checks its answers against XGBoost, and measures it: 1, 8 and 32 connections, 1 and 100 rows, then a
fixed schedule at half of what it managed. A full run replaces the section `serving` of bench/results.md, and the plots.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.serving import plots, report
from bench.serving.load import measure, pace
from bench.serving.process import Failed, WrongAnswer
from bench.serving.report import SATURATED, Key, Measured
from bench.serving.rig import Rig, prepare
from bench.serving.servers import SERVERS, Server

FULL: tuple[Key, ...] = ((1, 1), (8, 1), (32, 1), (1, 100), (8, 100), (32, 100))
QUICK: tuple[Key, ...] = ((1, 1), (32, 1), (32, 100))


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers are ended on the way out
    servers = _chosen(options.only)
    folder = Path(tempfile.mkdtemp(prefix="perennial-bench-"))
    rig: Rig | None = None
    try:
        rig, left_out = prepare(folder, servers)
        for name, reason in left_out.items():
            _say(f"{name} is left out: {reason}")
        chosen = [server for server in servers if server.name not in left_out]
        results: dict[str, Measured] = {server.name: Measured() for server in chosen}
        rounds = 1 if options.quick else options.rounds
        for turn in range(rounds):
            for server in [server for server in chosen if server.name in results]:
                try:
                    _measure(rig, server, results[server.name], options.quick, options.seconds)
                    _say(f"round {turn + 1} of {rounds}: {_line(server, results[server.name])}")
                except Failed as failed:
                    left_out[server.name] = str(failed).splitlines()[0]
                    del results[server.name]
                    _say(f"{server.name} is left out from now on: {failed}")
    except (Failed, WrongAnswer) as failed:
        _say(f"failed: {failed}")
        return 1
    finally:
        if rig is not None:
            rig.stop()
        shutil.rmtree(folder, ignore_errors=True)
    _publish(results, left_out, rounds, options)
    return 1 if "ours" in left_out else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each cell, after a warm-up of one")
    parser.add_argument("--quick", action="store_true", help="one round, 2 s, fewer cells; prints, and writes nothing")
    parser.add_argument("--only", default="", help="names, comma separated; prints, and writes nothing")
    parser.add_argument("--json", type=Path, help="write every figure of every round to this file")
    return parser.parse_args()


def _chosen(only: str) -> list[Server]:
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    known = {server.name for server in SERVERS}
    if unknown := wanted - known:
        raise SystemExit(
            f"no server is named {', '.join(sorted(unknown))}; expected some of {', '.join(sorted(known))}"
        )
    return [server for server in SERVERS if not wanted or server.name in wanted]


def _measure(rig: Rig, server: Server, into: Measured, quick: bool, seconds: float) -> None:
    seconds = 2 if quick else seconds
    with rig.running(server) as started:
        into.started.append(started.seconds)
        saturated = 0.0
        for connections, rows in QUICK if quick else FULL:
            requests = rig.requests(server, rows)
            cell = measure(started.process, server, started.port, requests, connections, rows, seconds)
            into.add(cell)
            if (connections, rows) == SATURATED:
                saturated = cell.rate
        into.paced.append(pace(rig.tools, started.port, rig.requests(server, 1), saturated / 2, seconds))
        into.weights.append(started.process.weight())


def _line(server: Server, found: Measured) -> str:
    cells = [
        f"c{c} x {r}: {cells[-1].rate:,.0f}/s p99 {cells[-1].p99 / 1000:.2f} ms"
        for (c, r), cells in found.cells.items()
    ]
    paced, weight = found.paced[-1], found.weights[-1]
    return f"{server.name}: {'; '.join(cells)}; half: p99 {paced.p99 / 1000:.2f} ms; PSS {weight.pss:.0f} MB"


def _publish(results: dict[str, Measured], left_out: dict[str, str], rounds: int, options: argparse.Namespace) -> None:
    skipped = [f"{name}: {reason}." for name, reason in left_out.items()]
    text = report.section(results, "make bench-serving", skipped, rounds)
    if options.json:
        options.json.write_text(json.dumps({name: _figures(found) for name, found in results.items()}, indent=1))
    if not (options.quick or options.only):
        drawn = plots.draw(results)
        text = text.rstrip() + "\n\n" + "\n\n".join(f"![{file.stem}](plots/{file.name})" for file in drawn) + "\n"
        report.write_section("serving", text)
    print(text)


def _figures(found: Measured) -> dict[str, Sequence[object]]:
    return {
        "cells": [asdict(cell) for cells in found.cells.values() for cell in cells],
        "paced": [asdict(each) for each in found.paced],
        "weights": [asdict(each) for each in found.weights],
        "started": found.started,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
