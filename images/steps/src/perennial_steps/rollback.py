"""rollback: all of the traffic back to the champion; the challenger is out.

Order of writes: the route first, because it is what users feel; then the challenger's tags; its alias last, as the mark of unfinished work.
Safe at any moment of a run: when nothing was deployed, or when the challenger was promoted, nothing is taken back.
"""

from __future__ import annotations

import logging

from perennial_registry import verdicts
from perennial_registry.registry import ModelVersion, Registry
from perennial_spec import names
from perennial_spec.route import Route
from perennial_steps.context import Outcome, StepContext

log = logging.getLogger(__name__)


def run(context: StepContext) -> Outcome:
    """Take the run's challenger out of the route; the parameter `reason` is kept with the version.

    Raises:
        RegistryError: the registry is away, or somebody else changed the route. Run again, it continues.
    """
    name = context.pipeline.name
    with Registry(context.platform.need("mlflow_url")) as registry:
        champion = registry.champion(name)
        challenger = _challenger(context, registry)
        current = registry.route(name)
        target, leaving = _target(current, champion, challenger), [challenger.version] if challenger else []
        route = registry.move(name, current, target, context.request.run_key, leaving)
        done = _dismiss(context, registry, champion, challenger)
    serving = f"version {champion.version} serves" if champion else "there is no champion"
    return Outcome(
        f"{_said(challenger, current, done)}: {serving}",
        {
            "model_version": challenger.version if challenger else None,
            "champion_version": champion.version if champion else None,
            "revision": route.revision,
        },
    )


def _said(challenger: ModelVersion | None, before: Route, done: bool) -> str:
    if challenger and done:
        return f"version {challenger.version} is rolled back"
    if (
        challenger
        and (before.weights.get(challenger.version, 0.0) > 0 or challenger.version in before.shadow)
        and challenger.tags.get(names.TAG_VERDICT) == verdicts.REJECTED
    ):
        return f"version {challenger.version}, which is rejected, has no traffic any more"
    return "nothing was deployed"


def _challenger(context: StepContext, registry: Registry) -> ModelVersion | None:
    """The version that this run trained, or whichever is challenger when it trained none."""
    version = context.request.inputs.get("train", {}).get("model_version")
    if version is None:
        return registry.by_alias(context.pipeline.name, names.ALIAS_CHALLENGER)
    return registry.get(context.pipeline.name, str(version))


def _target(current: Route, champion: ModelVersion | None, challenger: ModelVersion | None) -> dict[str, float]:
    """All to the champion. Before there is one, all but the challenger; what is left over is empty, as before the first deployment."""
    if not current.weights:
        return {}
    if champion:
        return {champion.version: 1.0}
    if challenger is None or challenger.version not in current.weights:
        return dict(current.weights)
    return {}


def _dismiss(
    context: StepContext, registry: Registry, champion: ModelVersion | None, challenger: ModelVersion | None
) -> bool:
    """Record the verdict and take the alias away; False when there was nothing to dismiss."""
    if challenger is None:
        return False
    name, version = challenger.name, challenger.version
    is_champion = champion is not None and champion.version == version
    rejected = challenger.tags.get(names.TAG_VERDICT) != verdicts.PASSED
    if not is_champion and not rejected:
        registry.tag(name, version, names.TAG_VERDICT_REASON, _reason(context))
        registry.tag(name, version, names.TAG_VERDICT, verdicts.ROLLED_BACK)
    alias = registry.by_alias(name, names.ALIAS_CHALLENGER)
    if alias and alias.version == version:
        registry.delete_alias(name, names.ALIAS_CHALLENGER)
    return not is_champion and (not rejected or challenger.tags.get(names.TAG_VERDICT) == verdicts.ROLLED_BACK)


def _reason(context: StepContext) -> str:
    inputs = context.request.inputs
    said = (inputs.get(step, {}).get("reason") for step in ("experiment", "analyse"))
    found = context.request.params.get("reason") or next(filter(None, said), None)
    return str(found or f"the rollout of run {context.request.run_key} did not end well")[: verdicts.MAX_REASON]
