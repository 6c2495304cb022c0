"""A step that must wait is looked at again later. Until then its task is deferred: Airflow's triggerer holds a moment, and nobody
a process.

What a look wants to remember is kept in Airflow's database for the task of that run. It outlives the worker, every restart, and the retries
of the task, which the arguments of a deferral do not. It also outlives the task: a step that is cleared by hand finds what it knew, and
must see for itself whether that is still about the same thing.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import Context
from airflow.sdk.exceptions import TaskDeferred

log = logging.getLogger(__name__)

STATE_KEY = "perennial.look"
METHOD = "look_again"
"""Of `contract.StepTask`: where the task goes on."""


def state_of(context: Context) -> dict[str, Any]:
    """What the look before wanted to remember; empty at the first."""
    found = context["task_state_store"].get(STATE_KEY)
    return found if isinstance(found, dict) else {}


def wait(context: Context, seconds: float, state: dict[str, Any]) -> NoReturn:
    """Leave the task until the next look.

    The time in between counts for no `execution_timeout`, which is one look's, and takes no slot of the pool. Whoever marks the task as
    failed or clears it meanwhile ends the waiting: nothing else is there to be ended.

    Raises:
        TaskDeferred: always.
    """
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger  # only a task that waits needs it

    context["task_state_store"].set(STATE_KEY, state)
    log.info("the next look is in %.0f s", seconds)
    raise TaskDeferred(trigger=TimeDeltaTrigger(timedelta(seconds=seconds)), method_name=METHOD)
