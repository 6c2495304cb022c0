"""Following a Delta table: each row is read once, as its commit comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any


@dataclass(frozen=True)
class Batch:
    """Rows of one file."""

    rows: Any
    """A `pyarrow.Table`."""
    written: int
    """When the file was written: microseconds since 1970."""


@dataclass(frozen=True)
class _File:
    path: str
    written: int


class Tail:
    """Reads the files of a table that were written since a moment, and from then on only what new commits add.

    After the first look it reads the log's new commits alone. Files that only rearrange rows (compaction) are passed over. A batch may
    be given twice after a failure; readers must take a repeated row for the same row.
    """

    def __init__(self, uri: str, columns: tuple[str, ...]) -> None:
        self._uri = uri
        self._columns = columns
        self._version: int | None = None
        self._files: Any = None

    def read(self, since: int) -> Iterator[Batch]:
        """What is new, oldest file first.

        Args:
            since: microseconds since 1970; on the first look, files written before are not read.

        Raises:
            OSError, deltalake.exceptions.DeltaError, pyarrow.ArrowException, ValueError: the table cannot be read now.
        """
        version, files = self._first(since) if self._version is None else self._next(self._version)
        try:
            for file in sorted(files, key=lambda file: file.written):
                yield Batch(self._read(file.path), file.written)
        except FileNotFoundError:
            self._version = None  # compacted and cleaned up before it was read: its rows are in other files now
            raise
        self._version = version

    def _first(self, since: int) -> tuple[int | None, list[_File]]:
        import pyarrow as pa
        from deltalake import DeltaTable
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import PyFileSystem

        if not DeltaTable.is_deltatable(self._uri):
            return None, []
        table = DeltaTable(self._uri)
        self._files = PyFileSystem(DeltaStorageHandler(self._uri))
        actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "modification_time"]).to_pylist()
        files = [_File(action["path"], _microseconds(action["modification_time"])) for action in actions]
        return table.version(), [file for file in files if file.written >= since]

    def _next(self, version: int) -> tuple[int, list[_File]]:
        files: list[_File] = []
        for following in count(version + 1):
            try:
                with self._files.open_input_file(f"_delta_log/{following:020d}.json") as commit:
                    lines = commit.read().decode().splitlines()
            except FileNotFoundError:
                return following - 1, files
            adds = (action["add"] for action in map(json.loads, lines) if "add" in action)
            files += [_File(add["path"], add["modificationTime"] * 1000) for add in adds if add["dataChange"]]
        raise AssertionError  # count() does not end

    def _read(self, path: str) -> Any:
        """The columns that are wanted; those that the table did not have yet when the file was written are null."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        held = pq.read_schema(path, filesystem=self._files).names
        wanted = [column for column in self._columns if column in held]
        rows = pq.read_table(path, columns=wanted, filesystem=self._files)
        for column in self._columns:
            if column not in held:
                rows = rows.append_column(column, pa.nulls(rows.num_rows))
        return rows


def _microseconds(value: Any) -> int:
    """`modification_time` is milliseconds, as a number or as a timestamp."""
    return int(value.timestamp() * 1e6) if hasattr(value, "timestamp") else int(value) * 1000
