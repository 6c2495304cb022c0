"""Versions whose time is over are archived: those that never became champion, and those that were and are past their lifetime.

First a plan that changes nothing, then its writes. Archived means: the version keeps its entry, tags, run and plots, so that the past
can be told; it is promoted or rolled back to by force only; and it no longer pins the version of the data that it was trained on. What
serves, may serve next or is gone back to is never archived, however old: PerennialModelOld tells of an old champion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from perennial_registry.registry import ModelVersion, Registry
from perennial_spec import names
from perennial_spec.errors import RegistryError
from perennial_spec.retraining import Lifetime
from perennial_spec.route import Route


@dataclass(frozen=True)
class Judged:
    """One version, and what becomes of it."""

    version: ModelVersion
    archive: bool
    why: str
    """In words: `champion`, `never promoted, and 95d old`."""


@dataclass(frozen=True)
class Retirement:
    """What is to be archived, found out and not done."""

    name: str
    judged: tuple[Judged, ...]
    """Every version, the oldest first."""

    @property
    def leaving(self) -> tuple[Judged, ...]:
        """To be archived now."""
        return tuple(each for each in self.judged if each.archive)

    def pinned(self, data_uri: str) -> frozenset[int]:
        """Versions of the table at `data_uri` that a model needs which is not archived, nor will be."""
        kept = (each.version.tags for each in self.judged if not each.archive and not is_archived(each.version))
        return frozenset(
            int(tags[names.TAG_DATA_VERSION])
            for tags in kept
            if tags.get(names.TAG_DATA_URI) == data_uri and tags.get(names.TAG_DATA_VERSION, "").isdigit()
        )


def is_archived(version: ModelVersion) -> bool:
    """Its time is over."""
    return names.TAG_ARCHIVED_AT in version.tags


def need_unarchived(version: ModelVersion, where: str) -> None:
    """Refuse a version that is to take traffic although its time is over.

    Raises:
        RegistryError: it is archived.
    """
    if is_archived(version):
        raise RegistryError(
            f"version {version.version} of {version.name} is archived ({version.tags.get(names.TAG_ARCHIVED_REASON, '')})",
            where=where,
            expected="a version that is not archived",
            next="with --force it is taken all the same, and is archived no longer",
        )


def revive(registry: Registry, version: ModelVersion) -> None:
    """A version that is to take traffic is not archived any longer; before it takes any, since an archived one is not to serve."""
    if is_archived(version):
        registry.untag(version.name, version.version, names.TAG_ARCHIVED_AT)


def plan(registry: Registry, name: str, lifetime: Lifetime, now: datetime) -> Retirement:
    """Which versions are archived, and why the others are not.

    Raises:
        RegistryError: the registry is away.
    """
    return Retirement(name, tuple(judge(registry.versions(name), registry.route(name), lifetime, now)))


def judge(versions: Iterable[ModelVersion], route: Route, lifetime: Lifetime, now: datetime) -> Iterable[Judged]:
    """Each version by itself; pure.

    A version's age counts from its registration, which is the end of its training.
    """
    for version in versions:
        reason = _needed(version, route)
        if reason is None:
            yield _by_age(version, lifetime, now)
        else:
            yield Judged(version, False, reason)


def archive(registry: Registry, plan: Retirement, now: datetime) -> None:
    """Do what the plan says. Repeated after a kill it completes.

    Raises:
        RegistryError: the registry is away.
    """
    for each in plan.leaving:
        registry.tag(plan.name, each.version.version, names.TAG_ARCHIVED_REASON, each.why)
        registry.tag(plan.name, each.version.version, names.TAG_ARCHIVED_AT, now.isoformat(timespec="seconds"))


def _needed(version: ModelVersion, route: Route) -> str | None:
    """What the version is there for; None when for nothing."""
    if is_archived(version):
        return f"archived already: {version.tags.get(names.TAG_ARCHIVED_REASON, '')}"
    if version.aliases:
        return ", ".join(version.aliases)
    if version.version in {*route.weights, *route.shadow}:
        return "in the route"
    return None


def _by_age(version: ModelVersion, lifetime: Lifetime, now: datetime) -> Judged:
    was_champion = names.TAG_PROMOTED_AT in version.tags
    what = "was champion" if was_champion else "never promoted"
    limit = lifetime.retire_after if was_champion else lifetime.unpromoted_after
    age = now - (version.created_at or now)
    old = f"{age.days}d old"
    if age > limit:
        return Judged(version, True, f"{what}, and {old}")
    until = (version.created_at or now) + limit
    return Judged(version, False, f"{what}, {old}: kept until {until.astimezone(UTC):%Y-%m-%d}")
