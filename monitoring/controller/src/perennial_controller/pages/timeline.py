"""Rows of the ledger as a story. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from perennial_controller.entry import Entry
from perennial_controller.pages.links import Links, figure
from perennial_controller.pages.model import Moment, RunStory, Taken, Timeline
from perennial_controller.steps import Step, of_rows

_HEADINGS = {
    "schedule": "Schedule",
    "data": "New data",
    "pause": "Paused",
    "resume": "Resumed",
    "rollback": "Rolled back by hand",
    "promotion": "Promoted by hand",
    "person": "Asked for",
    "registry": "Registry",
}


def timeline(
    pipeline: str, entries: Sequence[Entry], live: Mapping[int, Sequence[Step]], links: Links, limit: int
) -> Timeline:
    """The story of a pipeline.

    Args:
        pipeline: its name.
        entries: the ledger's rows, the newest first; one more than is shown when there are older ones.
        live: steps of runs that have not ended, by the row's id.
        links: to the other parts.
        limit: so many are shown.
    """
    shown = entries[:limit]
    moments = tuple(moment(entry, live.get(entry.id), links) for entry in shown)
    return Timeline(pipeline, moments, shown[-1].id if len(entries) > limit else None)


def moment(entry: Entry, live: Sequence[Step] | None, links: Links) -> Moment:
    """One row, and what followed from it."""
    own = entry.delivery is not None
    return Moment(
        id=entry.id,
        at=entry.received_at.isoformat(),
        kind=entry.kind,
        heading=(entry.alert or "Alert") if entry.kind == "alert" else _HEADINGS.get(entry.kind, entry.kind),
        summary=entry.summary,
        decision=entry.decision,
        reason=entry.reason,
        actor=entry.actor,
        copies=entry.duplicates,
        ended_at=_iso(entry.resolved_at) if entry.kind == "alert" else None,
        trail=tuple(Taken(step["at"], step["decision"], step["reason"]) for step in entry.trail),
        run=_run(entry, live, links) if own else None,
        answered_by=entry.run_id if entry.run_id and not own else None,
        asks_again=entry.successor_id,
        links=figure(entry.payload.get("generatorURL")) if entry.kind == "alert" else (),
    )


def _run(entry: Entry, live: Sequence[Step] | None, links: Links) -> RunStory:
    assert entry.run_id and entry.dag_id  # a row with a delivery has them
    open_state = "running" if entry.delivery == "delivered" else "waiting"
    in_airflow = entry.delivery == "delivered" and entry.decision != "rolling_back"
    return RunStory(
        run_id=entry.run_id,
        state=str(entry.outcome or open_state),
        started_at=_iso(entry.delivered_at),
        ended_at=_iso(entry.finished_at),
        steps=tuple(live) if live is not None else tuple(of_rows(entry.steps)),
        model_version=entry.model_version,
        verdict=entry.verdict,
        error=entry.last_error,
        links=(
            *(links.run(entry.dag_id, entry.run_id) if in_airflow else ()),
            *(links.version(entry.pipeline, entry.model_version) if entry.model_version else ()),
        ),
    )


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
