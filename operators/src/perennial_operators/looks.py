"""A step that must wait is looked at again later. Until then its task is deferred: Airflow's triggerer holds a moment, and nobody
a process.

What a look wants to remember is kept in Airflow's database for the task of that run. It outlives the worker, every restart, and the retries
of the task, which the arguments of a deferral do not. It also outlives the task: a step that is cleared by hand finds what it knew, and
must see for itself whether that is still about the same thing.

A step may also need another one before its next look: a challenger whose champion has changed is evaluated again. That is then the task's
next look, as a process or pod of that step, with its resources and its account.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, cast

from airflow.sdk import Context
from airflow.sdk.exceptions import TaskDeferred

from perennial_spec.step import StepName

log = logging.getLogger(__name__)

KEY = "perennial.look"
METHOD = "look_again"
"""Of `contract.StepTask`: where the task goes on."""


@dataclass(frozen=True)
class Look:
    """What the next look of a task is."""

    state: dict[str, Any] = field(default_factory=dict)
    """What the task's own step wants to remember."""
    first: tuple[StepName, ...] = ()
    """Steps that run in its place, before it, in turn."""

    @property
    def step(self) -> StepName | None:
        """The step that is to run in place of the task's own; None: that is."""
        return self.first[0] if self.first else None


def next_look(context: Context) -> Look:
    """What was left for this look; nothing for the first."""
    found = context["task_state_store"].get(KEY)
    if not isinstance(found, dict):
        return Look()
    return Look(cast("dict[str, Any]", found["state"]), tuple(cast("list[StepName]", found["first"] or ())))


def wait(context: Context, seconds: float, look: Look) -> NoReturn:
    """Leave the task until the next look.

    The time in between counts for no `execution_timeout`, which is one look's, and takes no slot of the pool. Whoever marks the task as
    failed or clears it meanwhile ends the waiting: nothing else is there to be ended.

    Raises:
        TaskDeferred: always.
    """
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger  # only a task that waits needs it

    context["task_state_store"].set(KEY, {**asdict(look), "first": list(look.first)})
    log.info("the next look%s is in %.0f s", f", {look.step}," if look.step else "", seconds)
    raise TaskDeferred(trigger=TimeDeltaTrigger(timedelta(seconds=seconds)), method_name=METHOD)
