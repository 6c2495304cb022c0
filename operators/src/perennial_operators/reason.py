"""Why a DAG run was started, for the record that every model version keeps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from perennial_spec.errors import ContractError
from perennial_spec.step import Reason

_BY_RUN_TYPE = {"asset_triggered": "data", "asset_materialization": "data"}


def reason_of(conf: Mapping[str, Any] | None, run_type: str, due: datetime | None, user: str | None) -> Reason:
    """The reason that the caller gave in `conf["reason"]` (a `Reason`, or just words), or one made from the type of the run.

    Args:
        conf: the run's configuration.
        run_type: Airflow's: scheduled, manual, backfill, ...
        due: when a scheduled run was due.
        user: who started it, when Airflow knows.

    Raises:
        ContractError: `conf["reason"]` is neither.
    """
    given = (conf or {}).get("reason")
    if isinstance(given, str) and given.strip():
        return Reason(kind="person", summary=given.strip()[:500], actor=user)
    if given:
        return _validated(given, user)
    if run_type == "scheduled":
        return Reason(kind="schedule", summary=f"scheduled{f' for {due.isoformat()}' if due else ''}")
    if run_type in _BY_RUN_TYPE:
        return Reason(kind="data", summary="new data")
    return Reason(kind="person", summary=f"started by {user or 'hand'}", actor=user)


def _validated(given: Any, user: str | None) -> Reason:
    try:
        reason = Reason.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ContractError(
            f"{field}: {first['msg']}" if field else first["msg"],
            where="dag_run.conf.reason",
            expected='words, or {"kind": alert, schedule, person or data, "summary": words}',
        ) from None
    needs_actor = reason.kind == "person" and reason.actor is None
    return reason.model_copy(update={"actor": user}) if needs_actor else reason
