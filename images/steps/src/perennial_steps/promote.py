"""promote: the challenger becomes the champion. What is written in which order: see `perennial_registry.promotion`."""

from __future__ import annotations

from perennial_registry.promotion import Promotion, promote
from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_steps.challenger import Contest, again, contest, no
from perennial_steps.context import Outcome, StepContext


def run(context: StepContext) -> Outcome:
    """Make the challenger champion, with all of the traffic.

    Pending when it was judged against another champion than today's: it is evaluated first.

    Raises:
        RegistryError: the registry is away, or somebody else changed the route. Run again, it continues.
    """
    name, run_key = context.pipeline.name, context.request.run_key
    with Registry(context.platform.need("mlflow_url")) as registry:
        state = contest(context, registry)
        version = state.challenger.version
        if refusal := state.refusal:
            return no(refusal, version)
        if state.is_outdated:
            return again(state, "evaluate")
        alias = registry.by_alias(name, names.ALIAS_CHALLENGER)
        ours = alias if alias and alias.version == version else None  # a later run may have a challenger by now
        previous = _previous(registry, state)
        planned = Promotion(name, state.challenger, state.route, state.champion, ours)
        route = promote(registry, planned, run_key)
    over = f" over version {previous}" if previous else ""
    return Outcome(
        f"version {version} is champion{over}, with all of the traffic",
        {"model_version": version, "previous_version": previous, "revision": route.revision},
    )


def _previous(registry: Registry, state: Contest) -> str | None:
    """The version that was champion before: until now, or until an earlier attempt."""
    before = registry.by_alias(state.challenger.name, names.ALIAS_PREVIOUS) if state.is_won else state.champion
    return before.version if before else None
