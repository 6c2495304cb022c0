"""The Delta table of a pipeline: what it holds, landing a batch in it, and reading a window of it.

Every commit of ours carries in its metadata what each partition holds (rows, digest, first and last timestamp), so that a later ingest
knows without scanning whether a partition has changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial_spec.errors import BatchError, PlatformError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from deltalake import DeltaTable

PARTITION = "_partition"
"""The column that rows are partitioned by: `2013`, `2013-01` or `2013-01-31`, in UTC. Bookkeeping: no input of a model."""

_METADATA = "perennial"
_HARMLESS = {"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UPDATE TABLE METADATA"}
"""Operations of other tools that leave every row as it was."""
_LOOK_BACK = 50
_KEEP = {"delta.logRetentionDuration": "interval 3650 days", "delta.deletedFileRetentionDuration": "interval 3650 days"}
"""Models are tied to versions: these stay readable for ten years unless someone decides otherwise."""
_TYPES = {"boolean": "BOOLEAN", "long": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "timestamp": "TIMESTAMPTZ"}
_FULL = ("No space left", "os error 28", "File too large", "os error 27", "Disk quota", "os error 122")


class Conflict(Exception):
    """Another process committed first; nothing was written."""


@dataclass(frozen=True)
class Partition:
    """What one partition holds."""

    rows: int
    digest: str
    """The same for the same rows in any order."""
    first: str
    last: str
    """ISO timestamps in UTC."""


@dataclass(frozen=True)
class Ledger:
    """What our newest commit says about the table."""

    algorithm: str
    """What the digests were made with; others cannot be compared to them."""
    definition: str
    """Digest of the query and of the spec's `data` that the rows were made by."""
    layout: str
    """What decides which rows there are and where they lie: a change needs the whole table to be written again."""
    sources: str | None
    """State of the sources that are wholly landed, or None."""
    partitions: dict[str, Partition]

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        value = json.loads(text)
        value["partitions"] = {name: Partition(**held) for name, held in value["partitions"].items()}
        return cls(**value)


@dataclass(frozen=True)
class State:
    """The table as one version of it; `version` is -1 before the first commit."""

    uri: str
    version: int = -1
    columns: dict[str, str] = field(default_factory=dict)
    """DuckDB types by name, without the partition column."""
    ledger: Ledger | None = None
    is_current: bool = False
    """The ledger describes exactly this version: nobody else changed rows since."""

    @property
    def exists(self) -> bool:
        return self.version >= 0


def read_state(uri: str) -> State:
    """The newest version of the table and what our newest commit says of it.

    Raises:
        PlatformError: the store does not answer.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with store_errors(uri):
        try:
            table = DeltaTable(uri)
        except TableNotFoundError:
            return State(uri)
        commits = _settled_history(table)
        version = table.version()
        fields = {f.name: getattr(f.type, "type", str(f.type)) for f in table.schema().fields}
        is_current, ledger = True, None
        for commit in commits:
            if _METADATA in commit:
                ledger = Ledger.from_json(commit[_METADATA])
                break
            is_current = is_current and commit["operation"] in _HARMLESS
    columns = {name: _TYPES.get(kind, kind) for name, kind in fields.items() if name != PARTITION}
    return State(uri, version, columns, ledger, is_current and ledger is not None)


def _settled_history(table: DeltaTable) -> list[dict[str, Any]]:
    """The newest commits up to the table's version, which is the newest one after the call.

    delta-rs lists commits that came after the table was opened, and numbers them as if they had not: a list during which another
    process committed is not to be trusted, and is read again.
    """
    while True:
        version = table.version()
        commits: list[dict[str, Any]] = table.history(_LOOK_BACK)
        table.update_incremental()
        if table.version() == version:
            return commits


def commit(state: State, rows: Any, ledger: Ledger, partition: str | None) -> None:
    """Replace one partition, or with None the whole table, in one new version right after `state`.

    The commit is one file, put in place last and only if no other took its number: killed before, the table is as it was.

    Args:
        rows: a stream of Arrow record batches.

    Raises:
        Conflict: another process committed after `state` was read.
        PlatformError: the store cannot take it, for example because the disk is full.
    """
    from deltalake import CommitProperties, DeltaTable, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    with store_errors(state.uri):
        if not state.exists and "://" not in state.uri:
            Path(state.uri).mkdir(parents=True, exist_ok=True)
        try:
            write_deltalake(
                DeltaTable(state.uri, version=state.version) if state.exists else state.uri,
                rows,
                mode="overwrite"
                if state.exists
                else "error",  # a table that another has made meanwhile is not ours to overwrite
                predicate=f"{PARTITION} = '{partition}'" if partition is not None and state.exists else None,
                schema_mode="overwrite" if partition is None and state.exists else None,
                partition_by=[PARTITION],
                configuration=None if state.exists else _KEEP,
                # No retries inside: the ledger that goes into the commit describes the version right after `state`.
                commit_properties=CommitProperties(custom_metadata={_METADATA: ledger.to_json()}, max_commit_retries=0),
            )
        except CommitFailedError:
            raise Conflict from None
        except DeltaError as error:
            if not state.exists and "already exists" in str(error):
                raise Conflict from None
            raise


def read_window(
    uri: str, version: int, timestamp: str, *, since: datetime | None = None, columns: list[str] | None = None
) -> pa.Table:
    """Rows of one version whose timestamp is after `since`, without the partition column; other partitions and files are not read.

    Raises:
        BatchError: there is no such table or version, or its files are deleted.
        PlatformError: the store does not answer.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError
    from pyarrow import dataset

    with store_errors(uri):
        try:
            data = DeltaTable(uri, version=version).to_pyarrow_dataset()
        except (TableNotFoundError, DeltaError) as error:
            if isinstance(error, TableNotFoundError) or "version" in str(error).lower():
                raise BatchError(
                    f"there is no version {version} of the data", where=uri, next="land it first: perennial step ingest"
                ) from None
            raise
        wanted = columns or [name for name in data.schema.names if name != PARTITION]
        condition = None if since is None else dataset.field(timestamp) > since
        try:
            return data.to_table(columns=wanted, filter=condition)
        except FileNotFoundError as error:
            raise BatchError(
                f"the data of version {version} is deleted: no model needed it, and lifetime.delete_data_after has passed",
                where=uri,
                expected="the newest version, or one that a model was trained on which is not archived",
                next="train on the newest: perennial run",
            ) from error


def count_filled(uri: str, version: int, column: str) -> int:
    """Rows of a version that have a value in `column`: by the statistics in the log, or counted where files lack them.

    Raises:
        PlatformError: the store does not answer.
    """
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyarrow import dataset

    with store_errors(uri):
        found = DeltaTable(uri, version=version)
        actions = pa.table(found.get_add_actions(flatten=True)).to_pydict()
        rows, missing = actions.get("num_records", []), actions.get(f"null_count.{column}", [])
        if len(rows) == len(missing) and None not in {*rows, *missing}:
            return int(sum(rows) - sum(missing))
        # The log has statistics of the first 32 columns, unless a table says otherwise.
        return int(found.to_pyarrow_dataset().count_rows(filter=dataset.field(column).is_valid()))


def delete_unneeded(uri: str, pinned: Sequence[int], after: timedelta) -> int:
    """Delete files that left the table more than `after` ago, but for those of the versions `pinned`; how many they were.

    The newest version loses nothing, and the log keeps every version: one whose files are gone can be told of, and not be read.

    Raises:
        PlatformError: the store does not answer.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with store_errors(uri):
        try:
            found = DeltaTable(uri)
        except TableNotFoundError:  # nothing has landed yet
            return 0
        hours = math.ceil(after.total_seconds() / 3600)
        return len(
            found.vacuum(
                hours,
                dry_run=False,
                enforce_retention_duration=False,  # the table keeps them for ten years, unless the spec says otherwise
                full=True,
                keep_versions=[version for version in pinned if version <= found.version()],
            )
        )


def totals(partitions: Mapping[str, Partition]) -> tuple[int, str, str]:
    """Rows, first and last timestamp over all partitions."""
    held = partitions.values()
    return sum(p.rows for p in held), min(p.first for p in held), max(p.last for p in held)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """What the store says, as errors for people.

    Raises:
        PlatformError: it is full or away.
    """
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except (DeltaError, OSError) as error:
        text = str(error)
        if any(sign in text for sign in _FULL):
            raise PlatformError(
                f"the store is full: {text.splitlines()[0]}",
                where=uri,
                next="free space, then run the step again: the table is as it was before",
            ) from None
        raise PlatformError(
            f"the store does not take or give data: {text.splitlines()[0] if text else type(error).__name__}",
            where=uri,
            next="check the store and PERENNIAL_STORE, then run the step again: the table is as it was before",
        ) from None
