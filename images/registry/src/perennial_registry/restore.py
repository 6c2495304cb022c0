"""A person takes the traffic back: out of a rollout to the champion, or after a promotion to a version that was champion before.

Not a step: no run waits for it, and it needs neither Airflow nor the controller. First a plan that changes nothing, then its writes, in an
order that makes each prefix of them a consistent state, which doing it again completes:

    1. route: all traffic to the target        what users feel
    2. tags of the versions that leave         rolled_back, with the reason and who
    3. tag restored_at on a target that returns   before it is champion: it must never look newly promoted, and be watched as that
    4. alias champion: the target              from here on a challenger that was judged against the old champion is judged again
    5. alias previous: the one before it       so that a second rollback goes further back, and never forth again
    6. alias challenger removed                last: while it is there, there is something left to do
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from perennial_registry import verdicts
from perennial_registry.registry import ModelVersion, Registry, with_alias
from perennial_registry.retirement import is_archived, need_unarchived, revive
from perennial_spec import names
from perennial_spec.errors import RegistryError
from perennial_spec.route import Route, split
from perennial_spec.units import format_share


@dataclass(frozen=True)
class Restoration:
    """What is to be done, found out and not done."""

    name: str
    target: ModelVersion
    """The version that takes all of the traffic."""
    route: Route
    """As it is now."""
    leaving: tuple[ModelVersion, ...]
    """Versions that are rolled back: they were champion or challenger until now."""
    previous: ModelVersion | None
    """Where the next rollback would go to."""
    champion: ModelVersion | None
    """The champion until now."""
    aliases_stand: bool
    """No alias is to be moved."""

    @property
    def is_done(self) -> bool:
        """Nothing is left to do."""
        return self.aliases_stand and not self.leaving and self.route.live == (self.target.version,)

    def __str__(self) -> str:
        if self.is_done:
            return f"version {self.target.version} is champion and has all of the traffic already"
        leaving = ", ".join(version.version for version in self.leaving) or "none"
        return f"{split(self.route)} -> {self.target.version}: {format_share(1.0)}; rolled back: {leaving}"


def plan(registry: Registry, name: str, to: str | None = None, *, force: bool = False) -> Restoration:
    """Where the traffic is to go, and what that means.

    Args:
        registry: where the pipeline's versions are.
        name: the pipeline.
        to: a version that was champion before; when None, the champion while a challenger takes traffic, else the version before it.
        force: `to` may also be a version that never was champion, was rolled back or archived.

    Raises:
        RegistryError: there is nothing to go back to, or `to` may not be gone back to; the registry is away.
    """
    versions = {version.version: version for version in registry.versions(name)}
    route = registry.route(name)
    champion, challenger = (
        with_alias(versions.values(), names.ALIAS_CHAMPION),
        with_alias(versions.values(), names.ALIAS_CHALLENGER),
    )
    target = _named(registry, versions, name, to, force) if to else _natural(registry, versions, name, route)
    gone = [version for version in (champion, challenger) if version and version.version != target.version]
    before = _before(versions, target, exclude={version.version for version in gone})
    stand = champion == target and with_alias(versions.values(), names.ALIAS_PREVIOUS) == before
    return Restoration(name, target, route, tuple(gone), before, champion, stand)


def restore(registry: Registry, plan: Restoration, actor: str, reason: str) -> Route:
    """Do what the plan says; the route that is in force then.

    Raises:
        RegistryError: the registry is away, or somebody else changed the route meanwhile. Plan again, and do it again.
    """
    name, version = plan.name, plan.target.version
    revive(registry, plan.target)
    route = registry.move(name, plan.route, {version: 1.0}, actor, [left.version for left in plan.leaving])
    for left in plan.leaving:
        registry.tag(name, left.version, names.TAG_VERDICT_REASON, verdicts.reason_of(actor, reason))
        registry.tag(name, left.version, names.TAG_VERDICT, verdicts.ROLLED_BACK)
    if plan.target.tags.get(names.TAG_VERDICT) != verdicts.PROMOTED:  # by force
        registry.tag(name, version, names.TAG_PROMOTED_AT, datetime.now(UTC).isoformat(timespec="milliseconds"))
        registry.tag(name, version, names.TAG_VERDICT, verdicts.PROMOTED)
    if plan.champion is None or plan.champion.version != version:
        registry.tag(name, version, names.TAG_RESTORED_AT, datetime.now(UTC).isoformat(timespec="milliseconds"))
        registry.set_alias(name, names.ALIAS_CHAMPION, version)
    if plan.previous:
        registry.set_alias(name, names.ALIAS_PREVIOUS, plan.previous.version)
    else:
        registry.delete_alias(name, names.ALIAS_PREVIOUS)
    registry.delete_alias(name, names.ALIAS_CHALLENGER)
    return route


def _natural(registry: Registry, versions: dict[str, ModelVersion], name: str, route: Route) -> ModelVersion:
    champion = with_alias(versions.values(), names.ALIAS_CHAMPION)
    previous = with_alias(versions.values(), names.ALIAS_PREVIOUS)
    if previous and route.live == (previous.version,):  # a rollback that was begun: it is finished, not turned round
        return previous
    if champion and (route.live != (champion.version,) or with_alias(versions.values(), names.ALIAS_CHALLENGER)):
        return champion
    if previous is None:
        raise RegistryError(
            f"{name} has no version to go back to: "
            + (f"version {champion.version} is its first champion" if champion else "it never had a champion"),
            where=registry.rest.url,
            expected=f"a version with the alias {names.ALIAS_PREVIOUS}",
            next=f"name one with --to; the versions are listed at {registry.rest.url}/#/models/{name}",
        )
    return previous


def _named(registry: Registry, versions: dict[str, ModelVersion], name: str, wanted: str, force: bool) -> ModelVersion:
    good = [version.version for version in versions.values() if _was_good(version) and not is_archived(version)]
    target = versions.get(wanted)
    if target is None:
        raise RegistryError(
            f"{name} has no version {wanted!r}",
            where=registry.rest.url,
            expected=f"one of {', '.join(good) or 'none: no version was champion yet'}",
        )
    if not force:
        need_unarchived(target, registry.rest.url)
    if not _was_good(target) and not force:
        verdict = target.tags.get(names.TAG_VERDICT) or "not evaluated"
        raise RegistryError(
            f"version {wanted} of {name} is {verdict.replace('_', ' ')}: it may be worse than what serves now",
            where=registry.rest.url,
            expected=f"a version that was champion: {', '.join(good) or 'there is none'}",
            next="with --force it is taken all the same",
        )
    return target


def _before(versions: dict[str, ModelVersion], target: ModelVersion, exclude: set[str]) -> ModelVersion | None:
    """The newest version that was champion before `target` was, and was not rolled back."""
    earlier = [
        version
        for version in versions.values()
        if _was_good(version)
        and not is_archived(version)
        and version.version not in exclude
        and version.number < target.number
    ]
    return max(earlier, key=lambda version: version.number, default=None)


def _was_good(version: ModelVersion) -> bool:
    """It was champion, and nobody has rolled it back."""
    return names.TAG_PROMOTED_AT in version.tags and version.tags.get(names.TAG_VERDICT) != verdicts.ROLLED_BACK
