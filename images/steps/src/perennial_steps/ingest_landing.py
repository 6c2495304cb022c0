"""Landing a batch: which partitions are new or have changed, and one new version of the table for each."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from perennial_spec.errors import BatchError, PlatformError, nearest
from perennial_steps import table
from perennial_steps.ingest_batch import Batch, digests
from perennial_steps.progress import phase
from perennial_steps.table import Conflict, Ledger, Partition, State

log = logging.getLogger(__name__)

ATTEMPTS = 8
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Facts:
    """What is recorded with each version; see `table.Ledger`."""

    definition: str
    layout: str
    sources: str | None


@dataclass
class Landed:
    """What landing came to."""

    version: int = -1
    partitions: dict[str, Partition] = field(default_factory=dict)
    """What the table now holds."""
    landed: list[str] = field(default_factory=list)
    """The partitions that this call has landed."""


def land(batch: Batch, uri: str, facts: Facts) -> Landed:
    """Bring the table up to the batch. Partitions that the batch does not have stay as they are.

    Raises:
        BatchError: the columns have changed without the spec or the query having changed.
        PlatformError: the store is full or away, or other processes commit without end.
    """
    result = Landed()
    for attempt in range(ATTEMPTS):
        try:
            _land_after(table.read_state(uri), batch, facts, result)
        except Conflict:
            log.info("another process has landed data meanwhile; looking again")
            time.sleep(_PAUSE_SECONDS * (attempt + random.random()))  # noqa: S311 (only spreads retries)
        else:
            return result
    raise PlatformError(
        f"other processes have committed to the table {ATTEMPTS} times while this batch was landing",
        where=uri,
        next="let one ingest run at a time, then run the step again",
    )


def algorithm() -> str:
    """What digests are made with: DuckDB's hash may change with its version, and then they cannot be compared."""
    import duckdb

    return f"duckdb-{duckdb.__version__}"


def _land_after(state: State, batch: Batch, facts: Facts, result: Landed) -> None:
    whole = _reconcile(state, batch, facts)
    held = batch.partitions()
    known = {} if whole else _known(state, batch)
    ledger = Ledger(algorithm(), facts.definition, facts.layout, None, known)
    if whole:
        _need_all(state, held)
        with phase(log, f"wrote the whole table anew, as version {state.version + 1}"):
            table.commit(state, batch.rows(None), replace(ledger, sources=facts.sources, partitions=held), None)
        state = replace(state, version=state.version + 1)
        known, changed = held, list(held)
        result.landed += changed
    else:
        changed = [name for name, now in held.items() if known.get(name) != now]
        for name in changed:
            known[name] = held[name]
            # Only the last commit may say that the sources are wholly landed: killed before it, the next run looks again.
            ledger = replace(ledger, sources=facts.sources if name == changed[-1] else None, partitions=known)
            with phase(log, f"landed {name}: {held[name].rows:,} rows, version {state.version + 1}"):
                table.commit(state, batch.rows(name), ledger, name)
            state = replace(state, version=state.version + 1)
            result.landed.append(name)
    result.version, result.partitions = state.version, dict(known)


def _known(state: State, batch: Batch) -> dict[str, Partition]:
    """What the table's partitions hold: from the log, or by reading them when the log cannot say."""
    if not state.exists:
        return {}
    if state.ledger and state.is_current and state.ledger.algorithm == algorithm():
        return dict(state.ledger.partitions)
    from deltalake import DeltaTable

    with phase(log, "read the table, because its log does not say what it holds"):
        data = DeltaTable(state.uri, version=state.version).to_pyarrow_dataset()
        batch.connection.register("_perennial_held", data)
        return digests(batch.connection, "_perennial_held", state.columns, batch.pipeline.spec.data.timestamp)


def _reconcile(state: State, batch: Batch, facts: Facts) -> bool:
    """Bring the batch's types to the table's where nothing is lost; True when the whole table must be written anew."""
    if not state.exists:
        return False
    if state.ledger is None:
        raise PlatformError(
            "there is a Delta table that no ingest has made",
            where=state.uri,
            expected="an empty place, or a table of this pipeline",
            next="move the table away, or set PERENNIAL_STORE to another place",
        )
    casts, changes = compare(state.columns, batch.types, batch.all_null)
    meant = state.ledger.definition != facts.definition
    if changes and not meant:
        raise BatchError(
            f"the columns have changed since the last batch: {'; '.join(changes)}",
            where=state.uri,
            expected="the same columns and types in every batch",
            next="mend the source, or cast in the query (a changed query may change the columns)",
        )
    for column, kind in casts.items():
        batch.cast(column, kind)
    return bool(changes) or state.ledger.layout != facts.layout


def compare(
    held: Mapping[str, str], new: Mapping[str, str], all_null: Callable[[str], bool]
) -> tuple[dict[str, str], list[str]]:
    """Casts that lose nothing, and what has changed beyond them, in words."""
    casts: dict[str, str] = {}
    changes: list[str] = []
    for column, kind in new.items():
        old = held.get(column)
        if old is None:
            changes.append(f"column {column!r} ({kind}) is new")
        elif old != kind:
            if all_null(column) or (kind, old) == ("BIGINT", "DOUBLE"):
                casts[column] = old
            else:
                changes.append(f"column {column!r} was {old} and is {kind}")
    for column in held:
        if column not in new:
            guess = nearest(column, [name for name in new if name not in held])
            changes.append(f"column {column!r} is gone" + (f" (is it {guess!r} now?)" if guess else ""))
    return casts, changes


def _need_all(state: State, held: Mapping[str, Partition]) -> None:
    old = state.ledger.partitions if state.ledger else {}
    lost = sorted(name for name, before in old.items() if not _covered(name, before, held))
    if lost:
        raise BatchError(
            f"the columns or the partitioning have changed, and the sources no longer have {len(lost)} landed partitions, "
            f"the first {lost[0]}: writing the table anew would lose them",
            where=state.uri,
            expected="sources with every partition that has landed",
            next="bring the old files back, keep the columns as they were, or move the table away to start anew",
        )


def _covered(name: str, before: Partition, held: Mapping[str, Partition]) -> bool:
    """Whether the new partitions have the period of an old one; those of another grain begin with its name, or it with theirs."""
    if name in held:
        return True
    same = [now for other, now in held.items() if other.startswith(name) or name.startswith(other)]
    return (
        bool(same) and min(now.first for now in same) <= before.first and max(now.last for now in same) >= before.last
    )
