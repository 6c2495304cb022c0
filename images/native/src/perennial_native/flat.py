"""A forest as plain arrays: what is kept on disk, and what several processes map at once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

FORMAT = 1
META = "forest.json"
MISSING_LEFT, BY_CATEGORY = 1, 2

TREES: Mapping[str, str] = {
    "roots": "int32",
    "groups": "int32",
    "feature": "int32",
    "threshold": "float32",
    "left": "int32",
    "flags": "uint8",
    "set": "int32",
    "set_start": "int64",
    "set_bits": "uint32",
    "leaves": "float32",
    "base": "float32",
}
"""The arrays that say what the forest answers, and their types.

By tree: `roots` (its first node) and `groups` (the output that it adds to). By node: `feature`; `threshold` (below it goes left);
`left` (the left child, the right one follows it; in a leaf, -1 - its number); `flags` (1: missing goes left, 2: the split is
by category); `set` (of a split by category, which set goes right). By set: `set_start`, and one more at the end, in words of
`set_bits`, lowest category first. By leaf: `leaves`[leaf, width]. By group: `base`, the margin before the first tree.
"""

FAST: Mapping[str, str] = {
    "number": "int32",
    "cut_start": "int64",
    "cuts": "int32",
    "column_start": "int32",
    "shift": "int32",
    "missing": "uint8",
    "category": "int32",
    "category_column": "int32",
    "category_size": "int32",
    "table_start": "int64",
    "tables": "uint8",
    "narrow": "uint16",
    "wide": "uint32",
    "lane_column": "uint16",
    "lane_cut": "int8",
    "perfect_leaf": "float32",
    "deep": "uint64",
}
"""The arrays that say the same in the form that is fast to answer (`columns`), and their types.

By feature that is compared as a number: `number` (the feature), `cut_start` in `cuts` (its thresholds as ordered whole numbers) and
`column_start` in `shift` and `missing`; both starts have one more at the end. By column of it: `shift` (how many cuts the earlier
columns have) and `missing` (the byte of a missing value). By feature that is a category: `category` (the feature), `category_column` (its
first column, and one more at the end), `category_size` (rows of its table, less two), `table_start` in `tables`, and one more at the end.

Then the nodes. Of perfect trees, all [trees, 2**levels]: `perfect_leaf`; `lane_column` and `lane_cut` (less 128; below it goes left); the
same in one number, `narrow` (8 bits of column, 8 of cut; above it goes right) or `wide` (16 and 8). Else `deep`[nodes]. Or neither.
"""


@dataclass(frozen=True)
class Flat:
    """A flattened forest. Made by `flatten`; checked when a `Forest` is made of it, not before."""

    features: int
    """Columns of the matrix that it reads."""
    outputs: int
    """Values per row that it answers."""
    transform: str
    """What turns margins into predictions: identity, sigmoid, exp, hinge, softprob or softmax."""
    arrays: Mapping[str, Array]
    """By name, as in `TREES` and `FAST`; read only."""

    def save(self, folder: str | Path) -> None:
        """Writes the folder. A process that has mapped the files of an earlier `save` keeps what it mapped."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self.arrays.items():
            _replace(folder / f"{name}.npy", lambda file, array=array: np.save(file, array, allow_pickle=False))
        meta = {"format": FORMAT, "features": self.features, "outputs": self.outputs, "transform": self.transform}
        _replace(folder / META, lambda file: file.write(json.dumps(meta).encode()))

    @classmethod
    def load(cls, folder: str | Path) -> Flat:
        """The forest that was saved there, mapped from disk and not read.

        Raises:
            ValueError: a file is missing, damaged, or of another format.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / META).read_bytes())
            if meta["format"] != FORMAT:
                raise ValueError(
                    f"its format is {meta['format']!r}, this release reads {FORMAT}; flatten the model again"
                )
            arrays = {name: _map(folder / f"{name}.npy") for name in (*TREES, *FAST)}
            return cls(int(meta["features"]), int(meta["outputs"]), str(meta["transform"]), arrays)
        except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} holds no flattened forest: {error}") from error


def _map(file: Path) -> Array:
    array: Array = np.load(file, mmap_mode="r" if file.stat().st_size else None, allow_pickle=False)
    return array


def _replace(file: Path, write: Any) -> None:
    """Through another name: bytes under a mapping never change."""
    other = file.with_name(f".{file.name}.{os.getpid()}")
    with other.open("wb") as opened:
        write(opened)
    other.replace(file)
