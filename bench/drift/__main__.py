"""Drift rules beside Evidently and NannyML on the same windows of real flights: `python -m bench.drift`, from the project's folder.

Replaces the section `drift` of bench/results.md, and its plot. About a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bench.drift import plots, report
from bench.drift.data import Case, Columns, cases, flights
from bench.drift.report import Found, Row
from bench.drift.rules import Rules
from bench.serving.report import write_section

PEERS = Path(__file__).parent / "peers"
THRESHOLDS = {"rules at psi 0.2": 0.2, "rules at psi 0.01": 0.01}
"""The spec's default, and one so low that nothing but the limit of chance holds false alarms back."""
MOVED = {
    "shift": "temperature_f",
    "category": "carrier",
    "missing": "planned_minutes",
    "unseen": "carrier",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiet", type=int, default=200, help="windows of each size without drift")
    parser.add_argument(
        "--peers-quiet", type=int, default=40, help="of these, how many the peers judge: they take longer"
    )
    parser.add_argument("--moved", type=int, default=5, help="windows of each size and grade with drift")
    parser.add_argument("--json", type=Path, help="write what was found in every window to this file")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    options = parser.parse_args()
    _install()
    reference, winter, made = cases(flights(), options.quiet, options.moved)
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder, ThreadPoolExecutor(1) as pool:
        listed = list(made)
        _write(Path(folder), reference, winter, listed, options.peers_quiet)
        asked = pool.submit(_peers, Path(folder))
        found = _rules(reference, winter, listed)
        answer = asked.result()
    found.update({report.TITLES[peer]: by_case for peer, by_case in answer["found"].items()})
    rows = [
        Row(case.kind, case.grade, case.rows, MOVED.get(case.kind), {name: found[name][case.name] for name in found})
        for case in listed
    ]
    if options.json:
        options.json.write_text(json.dumps([vars(row) for row in rows]))
    text = report.section(rows, "python -m bench.drift", answer["agrees"])
    if not options.dry:
        drawn = plots.draw(rows)
        write_section("drift", text.rstrip() + f"\n\n![{drawn.stem}](plots/{drawn.name})\n")
    print(text)
    return 0


def _install() -> None:
    if not (PEERS / ".venv").exists():
        _say("installing Evidently and NannyML, locked, into bench/drift/peers/.venv")
    command = ["uv", "sync", "-q", "--locked", "--project", str(PEERS), "--python", sys.executable]
    subprocess.run(command, check=True)


def _rules(reference: Columns, winter: Columns, listed: Sequence[Case]) -> dict[str, Found]:
    rules = {False: Rules(reference), True: Rules(winter)}
    found: dict[str, Found] = {name: {} for name in THRESHOLDS}
    for case in listed:
        windows = rules[case.seasonal].drifted(case, min(THRESHOLDS.values()))
        for name, psi in THRESHOLDS.items():
            found[name][case.name] = [[feature for feature, value in each.items() if value > psi] for each in windows]
        _say(f"rules: {case.name}")
    return found


def _write(folder: Path, reference: Columns, winter: Columns, listed: Sequence[Case], quiet: int) -> None:
    _parquet(reference, folder / "reference.parquet")
    _parquet(winter, folder / "winter.parquet")
    for case in listed:
        together = {name: np.concatenate([window[name] for window in case.windows[:quiet]]) for name in reference}
        _parquet(together, folder / f"{case.name}.parquet")
    told = [
        {
            "name": case.name,
            "rows": case.rows,
            "reference": "winter" if case.seasonal else "reference",
            "column": MOVED.get(case.kind),
        }
        for case in listed
    ]
    (folder / "cases.json").write_text(json.dumps(told))


def _parquet(columns: Columns, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()}), file)


def _peers(folder: Path) -> dict[str, Any]:
    command = [str(PEERS / ".venv" / "bin" / "python"), str(PEERS / "judge.py"), str(folder)]
    with (folder / "answer.json").open("w") as answer:
        subprocess.run(command, check=True, stdout=answer)
    found: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
