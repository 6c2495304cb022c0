"""What live quality costs, and how near the estimate comes to the truth: the section `quality` of bench/results.md.

    python -m bench.quality [--quick] [--only flights,days,million]

`flights`: a model of January to March, asked about every flight from April to December: the estimate of each week before its labels come,
beside NannyML's CBPE on the same rows, and beside the truth. `days`: what one label costs on the first day and on the hundredth.
`million`: what a refresh costs with a million predictions in the window. `--quick` takes less of each, and writes nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.quality import days, flights, million, plots, report

PARTS = ("flights", "days", "million")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if "flights" in wanted:
            weeks = flights.run(work / "flights", weeks=8 if arguments.quick else 39)
            found["flights"] = report.of_weeks(weeks)
            if not arguments.quick:
                plots.weeks(weeks)
        if "days" in wanted:
            measured = days.run(work / "days", days=10 if arguments.quick else 100)
            found["days"] = report.of_days(measured)
            if not arguments.quick:
                plots.days(measured)
        if "million" in wanted:
            found["million"] = report.of_million(million.run(work / "million", 10**5 if arguments.quick else 10**6))
    for part, lines in found.items():
        print("\n".join(lines))
        if not arguments.quick:
            report.write(part, lines)


if __name__ == "__main__":
    main()
