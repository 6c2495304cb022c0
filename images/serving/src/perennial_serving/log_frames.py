"""What the model server sends to the process that writes its log, and how that process reads it.

Frames go over a private pair of sockets between two processes of one program, so that they need no version: 4 bytes of length, and then
marshalled plain values, which Python encodes and decodes faster than any format that others could read. An entry is what one version
answered in one turn of the event loop; a segment is many entries of one table under one number, and is what gets acknowledged.
Entries are encoded in `log_entries`, on the event loop; this end of it does without numpy, for the sake of the writer's memory.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import Any

import orjson

from perennial_native._rows import objects
from perennial_spec import logs

Columns = dict[str, list[Any]]
Write = Callable[[str, str, str, Sequence["Segment"]], int]
"""(pipeline, table, log, segments): append those that the table does not have yet, or raise; see `tables.Tables.append`."""

SCORES = "scores"
"""Column of the predictions table that exists where a model has several outputs, or answers with text: all of them, a JSON list. `score`
is the first, or null for text."""

LENGTH = struct.Struct("<I")
_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_EPOCH = datetime(1970, 1, 1)
"""Without a zone: orjson writes such times as UTC, and faster."""


@dataclass(frozen=True)
class Hello:
    """The first frame, pickled: what the writer must know."""

    log: str
    """Names this log in the tables' transactions; a new one per server process."""
    parent: int
    """Process id of the server."""
    write: Write
    flush_seconds: float
    flush_rows: int
    end_seconds: float
    """How long to try on after the server has ended."""


@dataclass(frozen=True)
class Segment:
    """Entries of one table that are written and acknowledged together."""

    sequence: int
    pipeline: str
    table: str
    rows: int
    entries: list[bytes]

    @property
    def size(self) -> int:
        """Encoded bytes."""
        return sum(map(len, self.entries))

    def pieces(self) -> list[bytes]:
        """Its frame: the head, and the entries as they are, because copying them costs more than the rest."""
        lengths = [len(entry) for entry in self.entries]
        head = marshal.dumps((self.sequence, self.pipeline, self.table, self.rows, lengths))
        size = LENGTH.size + len(head) + sum(lengths)
        return [LENGTH.pack(size) + LENGTH.pack(len(head)) + head, *self.entries]

    def columns(self) -> Columns:
        """The rows, as the table has them."""
        return (
            prediction_columns(self.entries)
            if self.table == logs.PREDICTIONS
            else row_columns(self.table, self.entries)
        )


@dataclass(frozen=True)
class Ack:
    """The writer is done with all segments of a table up to `sequence`."""

    pipeline: str
    table: str
    sequence: int
    lost: int
    """Rows among them that no table can hold."""

    def frame(self) -> bytes:
        return framed((self.pipeline, self.table, self.sequence, self.lost))


def framed(value: Any) -> bytes:
    """The frame of a plain value."""
    data = marshal.dumps(value)
    return LENGTH.pack(len(data)) + data


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Complete frames at the start of `buffer`, which are taken out of it."""
    start, size = 0, len(buffer)
    while size - start >= LENGTH.size:
        (length,) = LENGTH.unpack_from(buffer, start)
        end = start + LENGTH.size + length
        if end > size:
            break
        yield bytes(memoryview(buffer)[start + LENGTH.size : end])
        start = end
    del buffer[:start]


def segment_of(frame: bytes) -> Segment:
    (length,) = LENGTH.unpack_from(frame)
    end = LENGTH.size + length
    # From our own parent, over a socket that nobody else has.
    sequence, pipeline, table, rows, lengths = marshal.loads(memoryview(frame)[LENGTH.size : end])  # noqa: S302
    bounds = accumulate(lengths, initial=end)
    return Segment(sequence, pipeline, table, rows, [frame[start:stop] for start, stop in pairwise(bounds)])


def ack_of(frame: bytes) -> Ack:
    return Ack(*marshal.loads(frame))  # noqa: S302 (from our own child)


def prediction_columns(entries: Iterable[bytes]) -> Columns:
    """Entries as the columns of the predictions table."""
    columns: Columns = {name: [] for name in (*logs.PREDICTION_COLUMNS, SCORES)}
    for data in entries:
        ids, entities, version, scores, width, shadow, at, layout, values = marshal.loads(data)  # noqa: S302 (see above)
        count = len(ids)
        columns[logs.PREDICTION_ID] += ids
        columns[logs.ENTITY] += entities or [None] * count
        columns[logs.VERSION] += [version] * count
        columns[logs.SHADOW] += [shadow] * count
        columns[logs.AT] += [at] * count
        columns[logs.INPUTS] += _inputs(count, layout, values)
        first, several = _scores(scores, width, count)
        columns[logs.SCORE] += first
        columns[SCORES] += several
    if not any(columns[SCORES]):
        del columns[SCORES]
    return columns


def row_columns(table: str, entries: Iterable[bytes]) -> Columns:
    """Entries as the columns of the labels table, or the rewards table."""
    columns: Columns = {name: [] for name in logs.ROW_COLUMNS[table]}
    for data in entries:
        for name, values in marshal.loads(data).items():  # noqa: S302 (see above)
            columns[name] += values
    return columns


def _scores(scores: bytes | list[str], width: int, count: int) -> tuple[Sequence[float | None], Sequence[str | None]]:
    """By row: the first score, or None for text; and all of them as a JSON list, where there are several or they are text."""
    if isinstance(scores, list):
        return [None] * count, [_json_text([text]) for text in scores]
    outputs: list[float] = list(memoryview(scores).cast("d"))
    if width == 1:
        return outputs, [None] * count
    several = [orjson.dumps(outputs[at : at + width]).decode() for at in range(0, len(outputs), width)]
    return outputs[::width], several


def _json_text(texts: list[str]) -> str:
    try:
        return orjson.dumps(texts).decode()
    except TypeError:  # half a surrogate pair
        return orjson.dumps([_utf8(text) for text in texts]).decode()


def _inputs(count: int, layout: bytes | None, values: Any) -> list[str]:
    if layout is None:  # in the words of the requests
        return objects(*values)
    names, tags = marshal.loads(layout)  # noqa: S302 (see above)
    if not names:
        return ["{}"] * count
    columns = [_unpacked(tag, data) for tag, data in zip(tags, values, strict=True)]
    return [_json(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _unpacked(tag: str, data: Any) -> Sequence[Any]:
    if tag == "O":
        found: Sequence[Any] = data
        return found
    if tag == "M":
        return [_moment(value) for value in memoryview(data).cast("q")]
    return memoryview(data).cast(tag).tolist()  # type: ignore[call-overload, no-any-return]


def _moment(micros: int) -> datetime | int | None:
    if micros == -(2**63):  # numpy's "not a time"
        return None
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:  # no year that a date can have; the number says as much
        return micros


def _json(row: dict[str, Any]) -> str:
    """The row as a JSON object; what is not finite is null."""
    try:
        return orjson.dumps(row, option=_OPTIONS).decode()
    except TypeError:  # half a surrogate pair, an integer of more than 64 bits, bytes: as text, so that the row is kept
        return orjson.dumps({_utf8(name): _storable(value) for name, value in row.items()}, option=_OPTIONS).decode()


def _storable(value: Any) -> Any:
    try:
        orjson.dumps(value, option=_OPTIONS)
        return value
    except TypeError:
        return _utf8(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _utf8(text: str) -> str:
    """Without halves of surrogate pairs, which no table can hold."""
    return text.encode(errors="replace").decode()
