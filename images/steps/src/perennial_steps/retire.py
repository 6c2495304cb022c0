"""retire: versions whose time is over are archived, and what only they needed of the data may go.

Order of writes: the marks first, files last, so that a version whose data is gone is never one that looks as if it could be trained again.
Run again, it continues.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from perennial_registry.registry import Registry
from perennial_registry.retirement import Retirement, archive, plan
from perennial_steps import table
from perennial_steps.context import Outcome, StepContext

log = logging.getLogger(__name__)

_NAMED = 40
"""So many are named in the result, which has 4,096 bytes; all of them are in the log."""


def run(context: StepContext) -> Outcome:
    """Archive what the spec's `lifetime` says, then delete what nothing needs any more.

    Raises:
        RegistryError, PlatformError: the registry or the store is away. Run again, it continues.
    """
    spec, now = context.pipeline.spec, datetime.now(UTC)
    with Registry(context.platform.need("mlflow_url")) as registry:
        planned = plan(registry, spec.name, spec.lifetime, now)
        for each in planned.judged:
            log.info("version %s: %s%s", each.version.version, "archived: " if each.archive else "", each.why)
        archive(registry, planned, now)
    uri = context.platform.table(spec.name, "data")
    pinned = sorted(planned.pinned(uri))
    after = spec.lifetime.delete_data_after
    deleted = _delete(uri, pinned, after) if after is not None else 0
    outputs = {
        "archived": [each.version.version for each in planned.leaving][:_NAMED],
        "kept": len(planned.judged) - len(planned.leaving),
        "deleted_files": deleted,
        "pinned": pinned[-_NAMED:],
    }
    return Outcome(_summary(planned, deleted), outputs)


def _delete(uri: str, pinned: list[int], after: timedelta) -> int:
    deleted = table.delete_unneeded(uri, pinned, after)
    log.info(
        "%d files deleted that left %s more than %d days ago; kept for models: %s", deleted, uri, after.days, pinned
    )
    return deleted


def _summary(planned: Retirement, deleted: int) -> str:
    archived = ", ".join(each.version.version for each in planned.leaving) or "no version"
    files = f"; {deleted} files of data deleted" if deleted else ""
    return f"archived: {archived}; {len(planned.judged) - len(planned.leaving)} stay{files}"
