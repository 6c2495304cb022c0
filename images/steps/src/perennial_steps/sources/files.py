"""csv, json and parquet files: local ones are read by DuckDB itself, those in an object store through Arrow's file systems."""

# ruff: noqa: S608 (what is put into SQL are identifiers and paths, quoted; DuckDB takes no parameters there)

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import translate
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial_spec.errors import SourceError
from perennial_steps.sources.location import Location

if TYPE_CHECKING:
    import duckdb

_READERS = {"csv": "read_csv", "json": "read_json", "parquet": "read_parquet"}


@dataclass(frozen=True)
class File:
    """One file that a source's wildcards match, with what tells that it has changed."""

    path: str
    size: int
    modified: int
    """Nanoseconds since 1970."""


def state_of(location: Location) -> str:
    """Names, sizes and times of change of the files."""
    return "\n".join(f"{file.path} {file.size} {file.modified}" for file in found(location))


def found(location: Location) -> list[File]:
    """The files that match, in the order of their names.

    Raises:
        SourceError: none does, or the object store does not answer.
    """
    files = _local(location) if location.is_local else _remote(location)[1]
    if not files:
        raise SourceError(
            f"source {location.name!r}: no file matches {location.hide(location.text)}",
            where=location.where,
            expected=f"at least one file at {location.written}",
            next="land the files, or mend data.sources",
        )
    return files


def attach(connection: duckdb.DuckDBPyConnection, location: Location, *, peek: bool) -> None:
    """See the files under one name; a column that some files lack is null there.

    Parquet stays where it is. Text is read once, into a table: the types of its columns are taken from all rows (of a sample, a late 1.5
    among whole numbers would be an error that no query can mend), and a view would look for them anew in every query.

    Raises:
        SourceError: no file matches, or one cannot be read (which one).
    """
    import duckdb

    files = found(location)
    if not location.is_local:
        connection.register(location.name, _dataset(location, [file.path for file in files]))
        return
    try:
        what, sample = ("VIEW", "") if peek or location.kind == "parquet" else ("TABLE", ", sample_size = -1")
        connection.execute(f'CREATE TEMP {what} "{location.name}" AS SELECT * FROM {_scan(location, files, sample)}')
    except duckdb.Error as error:
        scans = {
            file.path: f"{_scan(location, [file], sample)} {'LIMIT 0' if what == 'VIEW' else ''}" for file in files
        }
        raise (_first_unreadable(connection, location, scans) or _unreadable(location, "", error)) from None


def unreadable(connection: duckdb.DuckDBPyConnection, location: Location) -> SourceError | None:
    """The error of the first local file that cannot be read to its end, or None. Text was read to its end by `attach`."""
    if location.kind != "parquet" or not location.is_local:
        return None
    return _first_unreadable(connection, location, {file.path: _scan(location, [file]) for file in _local(location)})


def _first_unreadable(
    connection: duckdb.DuckDBPyConnection, location: Location, scans: Mapping[str, str]
) -> SourceError | None:
    import duckdb

    for path, scan in scans.items():
        try:
            connection.execute(f"SELECT sum(hash(f)::HUGEINT) FROM (FROM {scan}) f")
        except duckdb.OutOfMemoryException:
            return None
        except duckdb.Error as error:
            return _unreadable(location, path, error)
    return None


def _unreadable(location: Location, path: str, error: Exception) -> SourceError:
    # The first paragraph says it; the next ones are advice, and a line of the file is data that must not be in a log.
    lines = str(error).split("\n\n")[0].splitlines()
    reason = " ".join(line.strip() for line in lines if not line.startswith("Original Line"))
    return SourceError(
        f"source {location.name!r} cannot be read: {location.hide(reason)}",
        where=path or location.where,
        expected=f"{location.kind} files at {location.written}",
        next="mend or remove the file: nothing of this batch has been stored",
    )


def _scan(location: Location, files: list[File], options: str = "") -> str:
    quoted = ", ".join("'" + file.path.replace("'", "''") + "'" for file in files)
    return f"{_READERS[location.kind]}([{quoted}], union_by_name = true{options})"


def _local(location: Location) -> list[File]:
    paths = sorted(glob(location.text, recursive=True)) if has_magic(location.text) else [location.text]  # noqa: PTH207
    files = []
    for path in paths:
        try:
            stat = Path(path).stat()
        except OSError:
            continue
        files.append(File(path, stat.st_size, stat.st_mtime_ns))
    return files


def _remote(location: Location) -> tuple[Any, list[File]]:
    from pyarrow import fs

    base, pattern = _base_of(location.text)
    try:
        system, root = fs.FileSystem.from_uri(base)
        asked = fs.FileSelector(root, recursive=True, allow_not_found=True) if pattern else [root]
        infos = [info for info in system.get_file_info(asked) if info.is_file]
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"source {location.name!r} does not answer: {location.hide(str(error))}",
            where=location.where,
            expected=f"an object store at {location.written}",
            next="check the address, the credentials in the environment, and that the store is up",
        ) from None
    matches = re.compile(translate(f"{root.rstrip('/')}/{pattern}")) if pattern else re.compile("")
    files = [File(info.path, info.size or 0, info.mtime_ns or 0) for info in infos if matches.match(info.path)]
    return system, sorted(files, key=lambda file: file.path)


def _base_of(uri: str) -> tuple[str, str]:
    """`s3://lake/flights` and `*.parquet` of `s3://lake/flights/*.parquet`; options after `?` stay with the first."""
    address, _, options = uri.partition("?") if "?" in uri and "=" in uri else (uri, "", "")
    parts = address.split("/")
    first = next((n for n, part in enumerate(parts) if n > 2 and has_magic(part)), len(parts))
    base = "/".join(parts[:first]) + (f"?{options}" if options else "")
    return base, "/".join(parts[first:])


def _dataset(location: Location, paths: list[str]) -> Any:
    import pyarrow as pa
    from pyarrow import dataset

    system, _ = _remote(location)
    try:
        return dataset.dataset(paths, format=location.kind, filesystem=system)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(location, "", error) from None
