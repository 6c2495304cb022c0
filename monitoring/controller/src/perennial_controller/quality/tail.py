"""Following a Delta table: each row is read once, as its commit comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

_ROWS = 100_000
"""Of a file, so many are held at a time: one that was compacted may be much larger than the window."""


@dataclass(frozen=True)
class Batch:
    """Rows of one file, all or some."""

    rows: Any
    """A `pyarrow.Table`."""
    written: int
    """When the file was written: microseconds since 1970."""


@dataclass(frozen=True)
class _File:
    path: str
    written: int


class Rewritten(Exception):
    """What was read of the table no longer holds: rows were deleted or overwritten, or it was removed or made anew."""


class Tail:
    """Reads the files of a table that were written since a moment, and from then on only what new commits add.

    After the first look it reads the log's new commits alone. Files that only rearrange rows (compaction) are passed over. Rows may
    be given twice after a failure; readers must take a repeated row for the same row.
    """

    def __init__(self, uri: str, columns: tuple[str, ...]) -> None:
        self._uri = uri
        self._columns = columns
        self._version: int | None = None
        self._commit: tuple[Any, int] | None = None
        """Of the newest commit that was read, time and size of its file: a table that was made anew has another."""
        self._files: Any = None
        self._given: set[str] = set()
        """Files that were read before a later one could not be."""

    def read(self, since: int) -> Iterator[Batch]:
        """What is new, oldest file first.

        Args:
            since: microseconds since 1970; on the first look, files written before are not read.

        Raises:
            Rewritten: begin anew, with another one of these.
            OSError, deltalake.exceptions.DeltaError, pyarrow.ArrowException, ValueError: the table cannot be read now.
        """
        version, files = self._first(since) if self._version is None else self._next(self._version)
        try:
            for file in sorted(files, key=lambda file: file.written):
                if file.path not in self._given:
                    for rows in self._read(file.path):
                        yield Batch(rows, file.written)
                    self._given.add(file.path)
        except FileNotFoundError:
            self._version = None  # compacted and cleaned up before it was read: its rows are in other files now
            raise
        if version is not None and version != self._version:
            self._commit = self._look(version)
        self._version = version
        self._given.clear()

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
        if self._look(version) != self._commit:
            raise Rewritten(f"commit {version} of {self._uri} is not what it was")
        files: list[_File] = []
        for following in count(version + 1):
            try:
                with self._files.open_input_file(_commit_file(following)) as commit:
                    lines = commit.read().decode().splitlines()
            except FileNotFoundError:
                return following - 1, files
            actions = [json.loads(line) for line in lines]
            if any(action["remove"]["dataChange"] for action in actions if "remove" in action):
                raise Rewritten(f"commit {following} of {self._uri} takes rows away")
            adds = (action["add"] for action in actions if "add" in action)
            files += [_File(add["path"], add["modificationTime"] * 1000) for add in adds if add["dataChange"]]
        raise AssertionError  # count() does not end

    def _look(self, version: int) -> tuple[Any, int] | None:
        from pyarrow.fs import FileType

        found = self._files.get_file_info(_commit_file(version))
        return None if found.type == FileType.NotFound else (found.mtime_ns, found.size)

    def _read(self, path: str) -> Iterator[Any]:
        """The columns that are wanted, some rows at a time; columns that the table did not have yet when the file was written are null."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, filesystem=self._files) as file:
            held = set(file.schema_arrow.names)
            for batch in file.iter_batches(_ROWS, columns=[column for column in self._columns if column in held]):
                rows = pa.table(batch)
                for column in self._columns:
                    if column not in held:
                        rows = rows.append_column(column, pa.nulls(rows.num_rows))
                yield rows


def _commit_file(version: int) -> str:
    return f"_delta_log/{version:020d}.json"


def _microseconds(value: Any) -> int:
    """`modification_time` is milliseconds, as a number or as a timestamp."""
    return int(value.timestamp() * 1e6) if hasattr(value, "timestamp") else int(value) * 1000
