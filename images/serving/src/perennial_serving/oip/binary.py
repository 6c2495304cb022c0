"""Tensors as raw bytes: the binary tensor data extension of REST, and the raw contents of gRPC.

Values are little-endian and row-major without gaps. BYTES values are each preceded by their length in four bytes. Sizes come from
the client: each is compared with what is there before a byte is read. Numbers are not copied: arrays are views of the body.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from perennial_features.code import Array
from perennial_serving.oip.datatypes import Datatype
from perennial_serving.refusals import NotParsed
from perennial_spec.errors import RequestError

LENGTH_HEADER = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")


def header_length(text: str | None) -> int | None:
    """The value of `LENGTH_HEADER`; None when the whole body is JSON.

    Raises:
        NotParsed: it is no number.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise NotParsed(
            "is no size", where=LENGTH_HEADER, expected="the number of bytes of JSON that the body begins with"
        )
    return int(text)


class Tail:
    """The part of a body after its JSON, given out from front to back."""

    def __init__(self, body: memoryview, announced: bool) -> None:
        self._body = body
        self._at = 0
        self._announced = announced
        """The request said where its JSON ends."""

    def take(self, size: Any, where: str) -> memoryview:
        """The next `size` bytes.

        Raises:
            RequestError: that is no size, or there are fewer.
        """
        where = f"{where}: binary_data_size"
        if type(size) is not int or size < 0:
            raise RequestError("is no size", where=where, expected="a number of bytes, 0 or more")
        if not self._announced:
            raise RequestError(
                "is given, and the request does not say where its JSON ends",
                where=where,
                expected=f"the header {LENGTH_HEADER}",
            )
        left = len(self._body) - self._at
        if size > left:
            raise RequestError(
                f"wants {size:,} bytes", where=where, expected=f"at most {left:,}: so many are left in the body"
            )
        self._at += size
        return self._body[self._at - size : self._at]

    def end(self) -> None:
        """Raises:
        RequestError: bytes are left that no tensor has asked for.
        """
        if left := len(self._body) - self._at:
            raise RequestError(
                f"{left:,} bytes are left after the last tensor",
                where="inputs",
                expected="a binary_data_size for each binary tensor, which together make up what follows the JSON",
            )


def split(body: bytes, length: int | None) -> tuple[memoryview, Tail]:
    """The JSON of a body, and what follows it. Neither is copied.

    Args:
        body: of the request.
        length: of its JSON, as `LENGTH_HEADER` says; None for all.

    Raises:
        NotParsed: the body is shorter than that.
    """
    view = memoryview(body)
    if length is None:
        return view, Tail(view[:0], announced=False)
    if not 0 <= length <= len(view):
        raise NotParsed(f"is {length:,}", where=LENGTH_HEADER, expected=f"at most {len(view):,}, as the body has bytes")
    return view[:length], Tail(view[length:], announced=True)


def decode(raw: memoryview, datatype: Datatype, count: int, where: str) -> Array | list[str]:
    """The values of a tensor, flat: an array, or a list of text.

    Args:
        raw: all bytes of the tensor.
        datatype: of its values.
        count: of values, as the shape says.
        where: the tensor, for messages.

    Raises:
        RequestError: the bytes are not `count` values of the datatype.
    """
    if not datatype.size:
        return _texts(raw, count, where)
    if len(raw) != count * datatype.size:
        raise RequestError(
            f"has {len(raw):,} bytes",
            where=where,
            expected=f"{count * datatype.size:,}: {count:,} values of {datatype.name}, as its shape says",
        )
    if not count:
        return np.empty(0)
    values: Array = np.frombuffer(raw, dtype=datatype.code)
    if datatype.name == "BOOL":
        return _booleans(values, where)
    if datatype.name == "BF16":
        return (values.astype("<u4") << 16).view("<f4")
    return values


def encode(values: Sequence[str] | Array, datatype: str) -> bytes:
    """Answers as raw bytes: float64 as FP64, text as BYTES."""
    if datatype == "BYTES":
        parts = []
        for value in values:
            text = value.encode()
            parts += [_LENGTH.pack(len(text)), text]
        return b"".join(parts)
    return np.asarray(values, dtype="<f8").tobytes()


def _booleans(values: Array, where: str) -> Array:
    wrong = values.view(np.uint8) > 1
    if wrong.any():
        raise RequestError(
            "got a byte that is neither 0 nor 1",
            where=f"{where}, row {int(wrong.argmax())}",
            expected="true or false (BOOL)",
        )
    return values


def _texts(raw: memoryview, count: int, where: str) -> list[str]:
    # A value takes at least its length: a shape that promises more is refused before anything is built.
    if count * _LENGTH.size > len(raw):
        raise RequestError(
            f"has {len(raw):,} bytes", where=where, expected=f"a length and text for each of {count:,} values (BYTES)"
        )
    body, at, end, found = bytes(raw), 0, len(raw), []
    for row in range(count):
        start = at + _LENGTH.size
        size = _LENGTH.unpack_from(body, at)[0] if start <= end else -1
        at = start + size
        if size < 0 or at > end:
            left = f"a value of {size:,} bytes, and {end - start:,} are left" if size >= 0 else "the end of its bytes"
            raise RequestError(
                f"got {left}", where=f"{where}, row {row}", expected="a length in four bytes, then so many (BYTES)"
            )
        found.append(decode_text(body[start:at], f"{where}, row {row}"))
    if at != end:
        raise RequestError(
            f"{end - at:,} bytes are left after {count:,} values", where=where, expected="as many as its shape says"
        )
    return found


def decode_text(value: bytes, where: str) -> str:
    """A BYTES value.

    Raises:
        RequestError: it is not UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"is not UTF-8: byte {error.start}", where=where, expected="text in UTF-8 (BYTES)") from None
