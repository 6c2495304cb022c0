from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

UNSEEN_BITS: int
"""The bits of the float32 NaN that stands for a category that training did not see; the model takes it for missing."""

class Intake:
    """Typed columns that rows are written into, over and over.

    Args:
        columns: by column: name, kind (0 number, 1 integer, 2 boolean, 3 text, 4 timestamp, 5 key), whether a request may leave it out,
            and an array of at least `capacity` items: float64, int64, bool, object, int64 (microseconds), object.
        capacity: rows.

    The methods write rows from `start` on and answer True, or their number. They answer False, or 0, when there is no room, or when a
    value is not of the plain form that its kind has in JSON; cells from `start` on are then undefined. Nothing is ever converted, and no
    error explained: that is left to `perennial_features.request`.
    """

    def __new__(cls, columns: tuple[tuple[str, int, bool, Array], ...], capacity: int, /) -> Intake: ...
    def split(self, targets: bytes, absent: bytes, rows: list[Any], start: int, /) -> bool:
        """Rows that are lists.

        Args:
            targets: int32, by the request's columns the place of ours, or -1.
            absent: int32, those of ours that the request lacks.
        """

    def split_text(self, targets: bytes, absent: bytes, data: bytes, offset: int, start: int, /) -> int:
        """As `split`, from the text `[[...], ...]}}` that ends `data`, from `offset` on: how many rows; 0: not plain; -1: no room."""

    def journal(self, rows: int, /) -> tuple[bytes, bytes]:
        """The first rows as `split_text` read them, JSON lists one after the other: text, and int32 ends by row."""

    def records(self, rows: list[Any], start: int, /) -> bool:
        """Rows that are objects."""

    def columns(self, lists: dict[str, Any], rows: int, start: int, /) -> bool:
        """An object with one list of `rows` values per column."""

class Assembler:
    """Feature columns to the model's matrix.

    Args:
        features: by feature: name, and category to code, or None for a numeric one.
    """

    def __new__(cls, features: tuple[tuple[str, dict[Any, float] | None], ...], /) -> Assembler: ...
    def assemble(self, features: Any, rows: int, matrix: Array, /) -> bool:
        """Write float32[rows, features]: missing and infinite as NaN, unseen categories as the NaN `UNSEEN_BITS`.

        False when `features` is no dict, or one of them is not a one-dimensional array of `rows` numbers or texts.
        """

class Bins:
    """Counts values into bins, and numbers that are out of the range of the training data.

    Args:
        features: by feature, the predictions last: rising edges, or None for a categorical one; the number of its bins, among them
            `missing` as the last, and `other` before it for a categorical one; and its finite (least, greatest) value, or None.
    """

    def __new__(
        cls, features: tuple[tuple[tuple[float, ...] | None, int, tuple[float, float] | None], ...], /
    ) -> Bins: ...
    def count(self, matrix: Array, scores: Array, counters: Array, /) -> None:
        """Add float32[rows, features] and float64[rows] to int64[bins, then numeric features with a range]."""

def scan(data: bytes, /) -> tuple[bytes, int, bytes | None, bytes | None] | None:
    """The head of one whole, plain POST of JSON: path, where the body begins, Authorization and X-API-Key; None for anything else."""

def objects(labels: tuple[bytes | None, ...], text: bytes, ends: bytes, /) -> list[str]:
    """What `Intake.journal` gave, as JSON objects.

    Args:
        labels: by column, what stands before its value, such as b'"age":'; None: the value is left out.
    """

def ids(milliseconds: int, noise: bytes, version: int, /) -> list[str]:
    """One prediction id per 8 bytes of noise; see `perennial_serving.ids`."""

def id_check(high: int, low: int, version: int, /) -> int:
    """The last 24 bits of an id with these two halves that `version` made."""
