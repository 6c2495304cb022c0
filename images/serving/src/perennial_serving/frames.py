"""The line between the server and its child processes: frames of a head in JSON and columns as typed arrays.

    16 bytes  uint64 little-endian each: length of the head, length of the columns
    head      a JSON object; its word `columns` lists name, dtype, shape and bytes of each column
    columns   their memory, one after the other; text as a JSON list

Nothing in a frame can run code where it is read: a model's process is not trusted with the server's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from perennial_features.code import Array
from perennial_spec.errors import ContractError

PREFIX = struct.Struct("<QQ")
MAX_HEAD_BYTES = 2**24
MAX_BYTES = 2**31
"""A longer frame is taken for a line that is out of step."""
TEXT = "text"
_DTYPES = frozenset({"<f8", "<f4", "<i8", "<i4", "|b1", "<M8[us]"})

Head = dict[str, Any]
Columns = Mapping[str, Array]


def encode(head: Head, columns: Columns) -> bytes:
    """A frame.

    Args:
        head: what JSON can hold; `columns` is ours.
        columns: any shape, of float64, float32, int64, int32, bool, datetime64[us], or object: text or None.

    Raises:
        ContractError: a dtype that no frame carries.
    """
    listed: list[tuple[str, str, tuple[int, ...], int]] = []
    parts: list[bytes] = []
    for name, values in columns.items():
        dtype = TEXT if values.dtype.kind == "O" else values.dtype.str
        if dtype != TEXT and dtype not in _DTYPES:
            raise ContractError(f"a column of {values.dtype} cannot be sent", where=f"column {name[:60]!r}")
        part = orjson.dumps(values.tolist()) if dtype == TEXT else values.tobytes()
        parts.append(part)
        listed.append((name, dtype, values.shape, len(part)))
    start = orjson.dumps({**head, "columns": listed})
    return b"".join((PREFIX.pack(len(start), sum(map(len, parts))), start, *parts))


def lengths(prefix: bytes) -> tuple[int, int]:
    """The length in bytes of the head, and of the columns.

    Raises:
        ContractError: longer than any frame.
    """
    head, columns = PREFIX.unpack(prefix)
    if head > MAX_HEAD_BYTES or columns > MAX_BYTES:
        raise ContractError("a frame is too long", expected=f"at most {MAX_BYTES} bytes")
    return head, columns


def decode(head: bytes, columns: bytes | bytearray) -> tuple[Head, dict[str, Array]]:
    """A frame's head and columns; the arrays share the memory of `columns`.

    Raises:
        ContractError: it is damaged.
    """
    try:
        found = orjson.loads(head)
        arrays: dict[str, Array] = {}
        place = 0
        for name, dtype, shape, size in found.pop("columns"):
            arrays[str(name)] = _array(dtype, [int(n) for n in shape], memoryview(columns)[place : place + size])
            place += size
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ContractError(f"a frame is damaged: {type(error).__name__}") from None
    return found, arrays


def _array(dtype: str, shape: list[int], memory: memoryview) -> Array:
    count = math.prod(shape)
    if dtype == TEXT:
        texts = orjson.loads(memory)
        if len(shape) != 1 or len(texts) != count or not set(map(type, texts)) <= {str, type(None)}:
            raise ValueError
        found = np.empty(count, dtype=object)
        found[:] = texts
        return found
    if dtype not in _DTYPES or min(shape, default=0) < 0 or count * np.dtype(dtype).itemsize != len(memory):
        raise ValueError
    return np.frombuffer(memory, dtype=np.dtype(dtype)).reshape(shape)
