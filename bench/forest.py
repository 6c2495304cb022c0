"""The compiled forest beside XGBoost's own `inplace_predict`: 300 trees of depth 6 over 23 features, one thread, rows that change.

    python bench/forest.py [--seconds 4] [--categories]

Both answer the same blocks in turn, round by round, so that a busy machine slows both; medians over the rounds. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from perennial_features.engine import load_xgboost
from perennial_native.forest import Forest, agrees, flatten

TREES, FEATURES, ROWS = 300, 23, 4096
BLOCKS = (1, 8, 32, 100, 1000)


def trained(categories: bool, depth: int, trees: int) -> tuple[Any, Any]:
    """A booster, and float32 rows that it never saw: a tenth of the values missing."""
    xgb = load_xgboost()
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20_000, FEATURES)).astype(np.float32)
    kinds = ["q"] * FEATURES
    if categories:
        kinds[-2:] = ["c", "c"]
        matrix[:, -2:] = rng.integers(0, (16, 110), (len(matrix), 2))
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    filled = np.nan_to_num(matrix)
    score = filled[:, 0] * filled[:, 1] + np.sin(2 * filled[:, 2]) + filled[:, 3:].sum(axis=1) / 5 + filled[:, -1] % 5
    label = (score + rng.normal(size=len(matrix)) > np.median(score)).astype(int)
    data = xgb.DMatrix(matrix[ROWS:], label[ROWS:], feature_types=kinds, enable_categorical=True)
    params = {"objective": "binary:logistic", "max_depth": depth, "eta": 0.05, "nthread": 1}
    return xgb.train(params, data, trees), np.ascontiguousarray(matrix[:ROWS])


def timed(predict: Callable[[Any], Any], blocks: list[Any], seconds: float) -> float:
    """Seconds per block, over as many as fit; every call has other rows than the one before."""
    began, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        for block in blocks[:200]:
            predict(block)
        done += len(blocks[:200])
        blocks = blocks[200:] + blocks[:200]
    return (now - began) / done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="per size of block")
    parser.add_argument("--categories", action="store_true", help="two of the features are categories, of 16 and 110")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--trees", type=int, default=TREES)
    parser.add_argument("--only", choices=["forest"], help="leave XGBoost out")
    arguments = parser.parse_args()
    booster, matrix = trained(arguments.categories, arguments.depth, arguments.trees)
    began = time.perf_counter()
    flat = flatten(json.loads(booster.save_raw("json")))
    flattened = time.perf_counter()
    forest = Forest(flat)
    print(f"flatten {flattened - began:.3f} s, load {time.perf_counter() - flattened:.4f} s")
    print(
        f"{sum(array.nbytes for array in flat.arrays.values()) / 1e6:.2f} MB, levels and size {flat.arrays['perfect_leaf'].shape}"
    )
    assert (words := agrees(forest, booster, matrix)) is None, words
    print("| rows | forest us | inplace_predict us | ratio | forest rows/s |\n| --: | --: | --: | --: | --: |")
    for size in BLOCKS:
        blocks = [matrix[at : at + size] for at in range(0, ROWS - size + 1, size)]
        slice_ = arguments.seconds / 10
        pairs = [
            (
                timed(forest.predict, blocks, slice_),
                0.0 if arguments.only else timed(booster.inplace_predict, blocks, slice_),
            )
            for _ in range(5)
        ]
        ours, theirs = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
        print(f"| {size} | {ours:.2f} | {theirs:.1f} | {theirs / ours:.1f} | {size / ours * 1e6:,.0f} |")


if __name__ == "__main__":
    main()
