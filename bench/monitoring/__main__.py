"""What monitoring costs: `python -m bench.monitoring`, from the project's folder.

Three parts: what counting adds to a request, what a reference of the training data costs beside Evidently, and what the rules cost a real
Prometheus. A full run replaces the section `monitoring` of bench/results.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.monitoring import counting, reference, report, rules
from bench.monitoring.report import Measured
from bench.serving.process import Failed
from bench.serving.report import write_section

PARTS = ("counting", "reference", "rules")


def main() -> int:
    options = _options()
    chosen = [name for name in PARTS if not options.only or name in options.only.split(",")]
    found = Measured()
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
        try:
            if "counting" in chosen:
                found.counting = counting.measure(Path(folder, "counting"), options.rounds, 0.2)
            if "reference" in chosen:
                found.reference = reference.measure(options.rows, 5)
                _peer(found, options.peer_rows)
            if "rules" in chosen:
                place = Path(folder, "rules")
                place.mkdir()
                found.rules = rules.measure(place, options.pipelines, options.features, options.seconds)
        except Failed as failed:
            print(f"failed: {failed}", file=sys.stderr)
            return 1
    text = report.section(found, " ".join(["python -m bench.monitoring", *sys.argv[1:]]))
    if chosen == list(PARTS):
        write_section("monitoring", text)
    print(text)
    return 0


def _peer(found: Measured, rows: int) -> None:
    if not rows or found.reference is None:
        return
    try:
        found.reference.peer, found.reference.peer_rows = reference.measure_peer(rows), rows
    except (subprocess.CalledProcessError, OSError) as error:
        found.peer_fault = str(error)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", help=f"some of {', '.join(PARTS)}, comma separated; prints, and writes nothing"
    )
    parser.add_argument("--rounds", type=int, default=60, help="of counting: 0.2 s each way")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=1_000_000, help="for Evidently; 0 leaves it out")
    parser.add_argument("--pipelines", type=int, default=100)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="for which Prometheus is watched")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
