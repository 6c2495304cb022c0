"""What a reference of the training data costs, and a whole comparison with it, beside Evidently's of the same two data sets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perennial_features.reference import Reference
from perennial_features.schema import Feature, FeatureSchema
from perennial_serving.scorer import bins_of

FEATURES = 20
PEERS = Path(__file__).parent / "peers"
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass
class Costs:
    """Seconds, by round; the peer's once."""

    rows: int
    reference: list[float] = field(default_factory=list)
    counting: list[float] = field(default_factory=list)
    psi: list[float] = field(default_factory=list)
    peer: dict[str, float] | None = None
    """Seconds and MB; None: it could not be measured."""
    peer_rows: int = 0


def matrix_of(rows: int, seed: int, shift: float = 0.0) -> Matrix:
    """Normal, skewed, whole and constant numbers, a hundredth of them missing."""
    rng = np.random.default_rng(seed)
    found: Matrix = np.empty((rows, FEATURES), dtype=np.float32)
    for place in range(FEATURES):
        kind = place % 4
        values = (
            rng.normal(shift, 1, rows)
            if kind == 0
            else rng.gamma(2.0, 30.0, rows)
            if kind == 1
            else rng.integers(0, 1000, rows)
            if kind == 2
            else rng.random(rows).round(1)
        )
        found[:, place] = np.where(rng.random(rows) < 0.01, np.nan, values)
    return found


def measure(rows: int, rounds: int) -> Costs:
    """Ours, all three parts, `rounds` times."""
    schema = FeatureSchema(inputs=(), features=tuple(Feature(name=f"f{n}", kind="numeric") for n in range(FEATURES)))
    training, live = matrix_of(rows, 0), matrix_of(rows, 1, shift=0.1)
    scores = np.random.default_rng(2).random(rows)
    costs = Costs(rows)
    for _ in range(rounds):
        began = time.perf_counter()
        reference = Reference.of(training, schema, scores)
        built = time.perf_counter()
        counters = np.zeros(len(reference.series) + len(reference.ranged), dtype=np.int64)
        bins_of(reference).count(live, scores, counters)
        counted = time.perf_counter()
        reference.psi(counters[: len(reference.series)])
        costs.reference.append(built - began)
        costs.counting.append(counted - built)
        costs.psi.append(time.perf_counter() - counted)
    return costs


def measure_peer(rows: int) -> dict[str, float]:
    """Evidently, in an environment of its own.

    Raises:
        subprocess.CalledProcessError: it could not be installed, or failed.
    """
    install = ["uv", "sync", "-q", "--locked", "--project", str(PEERS), "--python", sys.executable]
    subprocess.run(install, check=True)
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}.npy" for name in ("reference", "current")]
        np.save(files[0], matrix_of(rows, 0))
        np.save(files[1], matrix_of(rows, 1, shift=0.1))
        done = subprocess.run(
            [PEERS / ".venv" / "bin" / "python", PEERS / "compare.py", *files],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
