"""The `retraining`, `resources` and `lifetime` parts of the spec."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from perennial_spec.base import Model
from perennial_spec.units import Duration, Memory


class Budget(Model):
    """At most `runs` retrainings per `per`."""

    runs: int = Field(default=4, ge=1)
    per: Duration = timedelta(days=1)


class Retraining(Model):
    """What may start a retraining, and how often."""

    schedule: (
        Annotated[str, StringConstraints(pattern=r"^(@(hourly|daily|weekly|monthly|yearly)|\S+( \S+){4})$")] | None
    ) = None
    """A cron expression or @hourly, @daily, @weekly, @monthly, @yearly, in UTC."""
    on: tuple[Literal["drift", "quality", "freshness"], ...] = ("drift", "quality")
    cooldown: Duration = timedelta(hours=6)
    """No alert starts a run within this time of the last one."""
    budget: Budget = Budget()


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
