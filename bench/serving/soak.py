"""Whether the server stays as it is: `python -m bench.serving.soak`, an hour of load while the route changes every minute.

Two versions take turns: one alone, both by weight, the other alone; they load and unload meanwhile. Every interval gives one line: latency
on a fixed schedule, failed requests, memory. A run of the default length replaces the section `soak` of bench/results.md, and its plot.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.serving import plots, report
from bench.serving.load import Paced, pace
from bench.serving.process import Failed
from bench.serving.rig import Rig, Started, prepare
from bench.serving.servers import SERVERS

MINUTES, SECONDS = 60, 60
SHARES = (1.0, 0.9, 0.5, 0.0, 0.1, 0.5)
"""Of the first version; the other has the rest. At 1 and 0 one of them is unloaded."""


@dataclass(frozen=True)
class Interval:
    minute: float
    """Since the start, at the end of the interval."""
    share: float
    paced: Paced
    pss: float
    """MB, all processes."""


def main() -> int:
    options = _options()
    ours = next(server for server in SERVERS if server.kind == "ours")
    folder = Path(tempfile.mkdtemp(prefix="perennial-soak-"))
    rig: Rig | None = None
    try:
        rig, _ = prepare(folder, [ours])
        versions = [rig.registry.register(rig.model / "bundle") for _ in range(2)]
        rig.registry.route({versions[0]: 1.0})
        with rig.running(ours) as started:
            found = _soak(rig, started, versions, options)
    except Failed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        return 1
    finally:
        if rig is not None:
            rig.stop()
        shutil.rmtree(folder, ignore_errors=True)
    text = section(found, options)
    if (options.minutes, options.every) == (MINUTES, SECONDS):
        file, minutes = plots.FOLDER / "serving-soak.svg", [each.minute for each in found]
        drawn = plots.lines(file, "Ours, while the route changes", minutes, curves(found))
        report.write_section("soak", f"{text}\n![{drawn.stem}](plots/{drawn.name})\n")
    print(text)
    return 0 if not any(each.paced.failed for each in found) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--every", type=float, default=SECONDS, help="seconds between two changes of the route")
    parser.add_argument("--rate", type=float, default=2000, help="requests per second, one row each")
    return parser.parse_args()


def _soak(rig: Rig, started: Started, versions: list[str], options: argparse.Namespace) -> list[Interval]:
    requests = rig.requests(next(server for server in SERVERS if server.kind == "ours"), 1)
    found: list[Interval] = []
    first, second = versions
    for share in itertools.islice(itertools.cycle(SHARES), max(1, round(options.minutes * 60 / options.every))):
        weights = {first: share, second: 1 - share}
        rig.registry.route({version: weight for version, weight in weights.items() if weight})
        paced = pace(rig.tools, started.port, requests, options.rate, options.every - 1)  # it warms up for a second
        minute = (len(found) + 1) * options.every / 60
        found.append(Interval(minute, share, paced, started.process.weight().pss))
        print(
            f"{minute:5.1f} min  {share:.0%} on the first  p99 {paced.p99 / 1000:.2f} ms  failed {paced.failed}  "
            f"PSS {found[-1].pss:.1f} MB",
            file=sys.stderr,
            flush=True,
        )
    return found


def section(found: list[Interval], options: argparse.Namespace) -> str:
    """What is said of it. The first tenth, in which everything happens for the first time, is left out of the comparison."""
    settled = found[len(found) // 10 :]
    quarter = max(1, len(settled) // 4)
    both = settled[:quarter], settled[-quarter:]
    minutes, answered = found[-1].minute, sum(each.paced.rate * (options.every - 1) for each in found)
    failed = sum(each.paced.failed for each in found)
    return "\n".join(
        [
            "## soak",
            "",
            f"`python -m bench.serving.soak` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores: {minutes:.0f} minutes at "
            f"{options.rate:,.0f} requests per second, one row each, all features on; the route changed every {options.every:.0f} s "
            f"between two versions, {len(found)} times. Server on core 0, load and registry on core 1.",
            "",
            "| | first quarter | last quarter |",
            "| --- | ---: | ---: |",
            *(
                f"| {name} | {median(values[0]):.2f} | {median(values[1]):.2f} |"
                for name, *values in zip(curves(found), *(curves(part).values() for part in both), strict=True)
            ),
            "",
            f"Of about {answered:,.0f} requests {failed} failed. Medians of the intervals of a quarter, after the first tenth.",
            "",
        ]
    )


def curves(found: list[Interval]) -> dict[str, list[float]]:
    """What is drawn over the minutes."""
    return {
        "PSS, MB": [each.pss for each in found],
        "p50, ms": [each.paced.p50 / 1000 for each in found],
        "p99, ms": [each.paced.p99 / 1000 for each in found],
    }


if __name__ == "__main__":
    sys.exit(main())
