"""The ticks of `retraining.schedule`, as events like any other: written before anything is done, once each.

Airflow's own scheduler starts no training: a tick that it made could not be paused, held or merged, and nobody would have written down why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from perennial_controller.events import NewEvent
from perennial_controller.marks import schedule_mark
from perennial_spec.load import Pipeline


def due(pipelines: Iterable[Pipeline], marks: Mapping[str, datetime], now: datetime) -> Iterator[NewEvent]:
    """For each pipeline the newest tick that has passed since its schedule was first seen.

    Of ticks that were missed only the newest is made up for. A tick that was written before is the same event again.

    Args:
        pipelines: those with a schedule, and others.
        marks: of the ledger; when each schedule was first seen.
        now: aware.
    """
    for pipeline in pipelines:
        schedule = pipeline.spec.retraining.schedule
        seen = marks.get(schedule_mark(pipeline.name, schedule)) if schedule else None
        if not schedule or seen is None:
            continue
        tick = last_tick(schedule, now)
        if tick is not None and tick > seen:
            moment = tick.astimezone(UTC)
            yield NewEvent(
                kind="schedule",
                pipeline=pipeline.name,
                dedupe_key=f"schedule:{pipeline.name}:{moment.isoformat()}",
                summary=f"scheduled for {moment:%Y-%m-%d %H:%M} UTC ({schedule})",
                payload={"schedule": schedule, "tick": moment.isoformat()},
            )


def last_tick(schedule: str, now: datetime) -> datetime | None:
    """The newest tick at or before `now`; None: it is no schedule, which `perennial check` and the DAG tell of."""
    return _tick(schedule, now, back=True)


def next_tick(schedule: str, after: datetime) -> datetime | None:
    """The first tick after a moment; None as `last_tick`."""
    return _tick(schedule, after, back=False)


def _tick(schedule: str, moment: datetime, *, back: bool) -> datetime | None:
    from croniter import CroniterError, croniter

    try:
        if back and croniter.match(schedule, moment):
            found: datetime = moment.replace(second=0, microsecond=0)
            return found
        ticks = croniter(schedule, moment)
        found = ticks.get_prev(datetime) if back else ticks.get_next(datetime)
    except CroniterError:
        return None
    return found
