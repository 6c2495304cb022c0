"""The `retraining`, `resources` and `lifetime` parts of the spec."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from perennial_spec.base import Model
from perennial_spec.units import Duration, Memory

Trigger = Literal["drift", "quality", "freshness"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)
_A_DAY = timedelta(days=1)


class Budget(Model):
    """At most `runs` retrainings per `per`, and `compute` of their time together."""

    runs: int = Field(default=4, ge=1)
    per: Duration = timedelta(days=1)
    compute: Annotated[Duration, Field(gt=timedelta(0))] | None = None
    """Alerts start no run once those of `per` have taken so long together, each from its start to its end; without a limit by default."""


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected the name of a time zone, as UTC or Europe/Berlin") from None
    return name


Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class QuietHours(Model):
    """Alerts and the schedule start no run from `start` to `end`; what comes meanwhile is decided at its end. People are not held."""

    start: Clock
    """`22:00`."""
    end: Clock
    """`06:00`: of the next day, when it is not after `start`."""
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    days: tuple[Day, ...] = Field(default=_DAYS, min_length=1)
    """Days on which quiet hours begin."""
    let_through: tuple[Trigger, ...] = ()
    """Alerts of these kinds start a run all the same."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.start == self.end:
            raise ValueError("start and end are the same: expected hours that end before they begin again")
        return self

    def until(self, now: datetime) -> datetime | None:
        """When the quiet hours end that last at `now` (aware); None: none do. By the clock on the wall, also when it is put back."""
        local = now.astimezone(ZoneInfo(self.timezone))
        for begins in (local.date(), local.date() - _A_DAY):
            ends = begins if self.end > self.start else begins + _A_DAY
            start, end = self._at(begins, self.start), self._at(ends, self.end)
            if _DAYS[begins.weekday()] in self.days and start <= now < end:
                return end
        return None

    def _at(self, day: date, clock: str) -> datetime:
        return datetime.combine(day, time.fromisoformat(clock), ZoneInfo(self.timezone)).astimezone(UTC)


class Retraining(Model):
    """What may start a retraining, and how often."""

    schedule: (
        Annotated[str, StringConstraints(pattern=r"^(@(hourly|daily|weekly|monthly|yearly)|\S+( \S+){4})$")] | None
    ) = None
    """A cron expression or @hourly, @daily, @weekly, @monthly, @yearly, in UTC. A pause and quiet hours hold a tick."""
    on: tuple[Trigger, ...] = ("drift", "quality")
    cooldown: Duration = timedelta(hours=6)
    """No alert starts a run within this time of the last one."""
    budget: Budget = Budget()
    quiet_hours: QuietHours | None = None
    min_new_labels: int = Field(default=0, ge=0)
    """Alerts start no run before so many rows with a label have landed since the last training."""


class StepResources(Model):
    """What one step may use; on Kubernetes both request and limit of its pod."""

    cpu: float = Field(default=1, gt=0)
    memory: Memory = 2 * 2**30
    timeout: Duration = timedelta(hours=1)
    retries: int = Field(default=1, ge=0, le=10)


class Lifetime(Model):
    """How long the model is expected to hold; printed on the model card. A champion older than `review_every` raises an alert.

    A version past its time is archived, once a day, unless it serves, is the challenger, or is the one that a rollback goes back to. It
    stays in the registry and can be told of, is promoted by force only, and its version of the data is no longer kept for it.
    """

    review_every: Duration = timedelta(days=90)
    """Since its training."""
    retire_after: Duration = timedelta(days=730)
    """Since its training: a version that was champion is archived then."""
    unpromoted_after: Duration = timedelta(days=90)
    """Since its training: a version that never became champion is archived then."""
    delete_data_after: Annotated[Duration, Field(ge=timedelta(days=7))] | None = None
    """Files that left the data table this long ago are deleted, but for those that a version which is not archived was trained on; at
    least `7d`, and by default never. The newest rows are not touched."""
