"""Asks the ledger, Airflow and the registry for what the pages show. Who does not answer is named, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from perennial_controller.entry import Entry
from perennial_controller.pages.links import Links
from perennial_controller.pages.model import Overview, Timeline
from perennial_controller.pages.overview import Known, broken, glance
from perennial_controller.pages.timeline import timeline
from perennial_controller.steps import Step, read_steps
from perennial_spec.errors import PerennialError

if TYPE_CHECKING:
    from perennial_controller.controller import Controller

SECONDS = 5.0
"""Longest that a page waits for one part."""
_LIVE = 10
"""Runs whose steps are asked for, at most; of older ones that never ended, nothing is told."""
_Found = TypeVar("_Found")


async def overview(controller: Controller, now: datetime) -> Overview:
    """All pipelines.

    Raises:
        what `controller.LEDGER_ERRORS` names: the ledger is away, and there is nothing to tell.
    """
    expiry = controller.settings.alert_expiry
    away: list[str] = []
    await controller.read_figures()
    standings, served = await asyncio.gather(
        controller.ledger.standings(now - expiry),
        _or(
            controller.registry.models(),
            {},
            "the registry does not answer: which version takes which traffic is not shown",
            away,
        ),
    )
    known = Known(now, standings, served, controller.champions.found, controller.loop.figures)
    links = links_of(controller)
    glances = {pipeline.name: glance(pipeline, known, links) for pipeline in controller.specs.all()}
    for name, error in controller.specs.broken().items():
        glances[name] = broken(name, error.what, glances.get(name))
    return Overview(tuple(glances[name] for name in sorted(glances)), now.isoformat(), tuple(away))


async def story(controller: Controller, name: str, limit: int, before: int, now: datetime) -> Timeline:
    """The timeline of a pipeline: its newest events whose ids are below `before`.

    Raises:
        what `controller.LEDGER_ERRORS` names.
    """
    away: list[str] = []
    entries = await controller.ledger.of_pipeline(name, limit + 1, before)
    active = [entry for entry in entries[:limit] if entry.delivery == "delivered" and not entry.outcome][:_LIVE]
    found = await asyncio.gather(*(_live(controller, entry, away) for entry in active))
    live = {entry.id: steps for entry, steps in zip(active, found, strict=True) if steps is not None}
    told = timeline(name, entries, live, links_of(controller), limit)
    return replace(told, at=now.isoformat(), away=tuple(dict.fromkeys(away)))


def links_of(controller: Controller) -> Links:
    """To the parts, as a browser reaches them."""
    return Links(controller.settings.public_airflow, controller.settings.public_mlflow)


async def _live(controller: Controller, entry: Entry, away: list[str]) -> list[Step] | None:
    assert entry.dag_id and entry.run_id
    asked = read_steps(controller.airflow, entry.dag_id, entry.run_id)
    return await _or(asked, None, "Airflow does not answer: steps of the runs that are active are not shown", away)


async def _or(asked: Awaitable[_Found], otherwise: _Found, why: str, away: list[str]) -> _Found:
    try:
        async with asyncio.timeout(SECONDS):
            return await asked
    except (PerennialError, TimeoutError):
        away.append(why)
        return otherwise
