"""promote: the challenger becomes the champion.

Five writes, in an order that makes each prefix of them a consistent state, which running again completes:

    1. route: all traffic to the challenger    it already serves; killed here, rollback still knows the old champion
    2. alias previous: the old champion        so that there is always a way back
    3. alias champion: the challenger          the moment of promotion; from here on a repeated run only finishes
    4. tags promoted_at, verdict               for people and for the audit
    5. alias challenger removed                last: while it is there, there is something left to do
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from perennial_registry import verdicts
from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.route import split
from perennial_steps.challenger import Contest, contest, no
from perennial_steps.context import Outcome, StepContext

log = logging.getLogger(__name__)


def run(context: StepContext) -> Outcome:
    """Make the challenger champion, with all of the traffic.

    Raises:
        RegistryError: the registry is away, or somebody else changed the route. Run again, it continues.
    """
    name, run_key = context.pipeline.name, context.request.run_key
    with Registry(context.platform.need("mlflow_url")) as registry:
        state = contest(context, registry)
        version = state.challenger.version
        if refusal := state.refusal:
            return no(refusal, version)
        current = registry.route(name)
        route = current.moved_to({version: 1.0}, run_key)
        if route is not current:
            log.info("route %s -> %s (revision %d)", split(current), split(route), route.revision)
            registry.write_route(name, route)
        previous = _crown(registry, state)
        _record(registry, state)
    over = f" over version {previous}" if previous else ""
    return Outcome(
        f"version {version} is champion{over}, with all of the traffic",
        {"model_version": version, "previous_version": previous, "revision": route.revision},
    )


def _crown(registry: Registry, state: Contest) -> str | None:
    """Move the aliases; returns the version that was champion before, now or in an earlier attempt."""
    name, version = state.challenger.name, state.challenger.version
    if state.is_won:
        before = registry.by_alias(name, names.ALIAS_PREVIOUS)
        return before.version if before else None
    if state.champion is None:
        registry.set_alias(name, names.ALIAS_CHAMPION, version)
        return None
    registry.set_alias(name, names.ALIAS_PREVIOUS, state.champion.version)
    registry.set_alias(name, names.ALIAS_CHAMPION, version)
    return state.champion.version


def _record(registry: Registry, state: Contest) -> None:
    name, version = state.challenger.name, state.challenger.version
    if state.challenger.tags.get(names.TAG_VERDICT) != verdicts.PROMOTED:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        registry.tag(name, version, names.TAG_PROMOTED_AT, now)
        registry.tag(name, version, names.TAG_VERDICT, verdicts.PROMOTED)
    challenger = registry.by_alias(name, names.ALIAS_CHALLENGER)
    if challenger and challenger.version == version:
        registry.delete_alias(name, names.ALIAS_CHALLENGER)
