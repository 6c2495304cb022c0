"""The datatypes of the protocol: how each is written in JSON, how many bytes it takes, and which values fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perennial_features.schema import InputKind
from perennial_serving.rows import kind_of
from perennial_spec.errors import RequestError


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype."""

    name: str
    code: str
    """numpy's, little-endian; of the bytes as they travel. Empty for BYTES, whose values differ in length."""
    size: int
    """Bytes per value; 0 for BYTES."""
    types: frozenset[type]
    """What a value may be in JSON; null is a missing value."""
    words: str
    """The same, for a message."""
    low: int = 0
    high: int = 0
    """The range of an integer; both 0 for the others."""

    def check(self, values: Sequence[Any], width: int, where: str) -> None:
        """Whether plain values, row-major in rows of `width`, are of this datatype.

        Raises:
            RequestError: one is not; names its row.
        """
        if not self.types.issuperset(map(type, values)):
            place = next(place for place, value in enumerate(values) if type(value) not in self.types)
            raise RequestError(
                f"got {kind_of(values[place])}",
                where=f"{where}, row {place // width}",
                expected=f"{self.words} ({self.name})",
            )
        if self.high:
            for place, value in enumerate(values):
                if value is not None and not self.low <= value <= self.high:
                    raise RequestError(
                        "got a number out of range",
                        where=f"{where}, row {place // width}",
                        expected=f"{self.low:,} to {self.high:,} ({self.name})",
                    )


def _integer(name: str, code: str, bits: int) -> Datatype:
    low, high = (0, 2**bits - 1) if code == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return Datatype(name, f"<{code}{bits // 8}", bits // 8, frozenset({int, type(None)}), "integers", low, high)


def _float(name: str, code: str, size: int) -> Datatype:
    return Datatype(name, code, size, frozenset({float, int, type(None)}), "numbers")


DATATYPES: dict[str, Datatype] = {
    found.name: found
    for found in (
        _float("FP16", "<f2", 2),
        _float("FP32", "<f4", 4),
        _float("FP64", "<f8", 8),
        _float("BF16", "<u2", 2),  # the upper half of an FP32; numpy has no name for it
        *(_integer(f"INT{bits}", "i", bits) for bits in (8, 16, 32, 64)),
        *(_integer(f"UINT{bits}", "u", bits) for bits in (8, 16, 32, 64)),
        Datatype("BOOL", "?", 1, frozenset({bool, type(None)}), "true or false"),
        Datatype("BYTES", "", 0, frozenset({str, type(None)}), "text"),
    )
}
OF_KIND: dict[InputKind, str] = {
    "number": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "text": "BYTES",
    "timestamp": "BYTES",
}
"""How the metadata names the model's inputs. Whatever can be converted is taken, too."""


def need_datatype(name: Any, where: str) -> Datatype:
    """The datatype of that name.

    Raises:
        RequestError: there is none.
    """
    found = DATATYPES.get(name) if isinstance(name, str) else None
    if found is None:
        raise RequestError("has no known datatype", where=where, expected=f"datatype: one of {', '.join(DATATYPES)}")
    return found
