"""A version becomes champion: at the end of its rollout, or because a person says so.

First a plan that changes nothing, then its writes, in an order that makes each prefix of them a consistent state, which doing it again
completes:

    1. route: all traffic to the version       killed here, rollback still knows the old champion
    2. alias previous: the old champion        so that there is always a way back
    3. alias champion: the version             the moment of promotion; from here on a repeated attempt only finishes
    4. tags promoted_at, verdict               for people, for the audit, and for the watch over what is new
    5. alias challenger removed                last: while it is there, there is something left to do

MLflow has no compare-and-set, so that two promotions at the same moment are found out by looking again: at the champion after 1, at the
route and the champion after 3. Who wrote the route last wins, the other one raises, and no order of their calls lets both end well.

Of a version that was champion before, promoted_at is written before 3: its verdict does not tell whether this promotion has been recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from perennial_registry import verdicts
from perennial_registry.registry import ModelVersion, Registry, with_alias
from perennial_registry.retirement import is_archived, need_unarchived, revive
from perennial_spec import names
from perennial_spec.errors import RegistryError
from perennial_spec.route import Route, split
from perennial_spec.units import format_share

PASSED = frozenset({verdicts.PASSED, verdicts.PROMOTED})
"""Verdicts of versions that have passed their gates, and that nobody has taken back."""


@dataclass(frozen=True)
class Promotion:
    """What is to be done, found out and not done."""

    name: str
    target: ModelVersion
    """The version that is to be champion."""
    route: Route
    """As it is now."""
    champion: ModelVersion | None
    """The champion until now."""
    challenger: ModelVersion | None
    """The version that is challenger no longer: the target, or one that is left without traffic."""

    @property
    def is_champion(self) -> bool:
        """The target is it already: an earlier attempt got this far."""
        return self.champion is not None and self.champion.version == self.target.version

    @property
    def is_done(self) -> bool:
        """Nothing is left to do."""
        return (
            self.is_champion
            and self.challenger is None
            and self.route.live == (self.target.version,)
            and self.target.tags.get(names.TAG_VERDICT) == verdicts.PROMOTED
        )

    def __str__(self) -> str:
        version = self.target.version
        if self.is_done:
            return f"version {version} is champion and has all of the traffic already"
        champion = self.champion.version if self.champion else "none"
        return f"{split(self.route)} -> {version}: {format_share(1.0)}; champion: {champion} -> {version}"


def plan(
    registry: Registry, name: str, version: str | None = None, *, signed: bool = False, force: bool = False
) -> Promotion:
    """Which version becomes champion, and what that means.

    Args:
        registry: where the pipeline's versions are.
        name: the pipeline.
        version: one that has passed its gates; when None, the challenger, else the newest that passed since the champion.
        signed: one that was never champion must carry a person's approval (`deployment.approval: required`).
        force: `version` may also be one that failed its gates, was not judged, was rolled back, not approved or archived.

    Raises:
        RegistryError: no version waits to be promoted, or `version` may not be; the registry is away.
    """
    route = registry.route(name)  # before all else: whoever changes it from here on is found out by its revision
    versions = registry.versions(name)
    champion, challenger = with_alias(versions, names.ALIAS_CHAMPION), with_alias(versions, names.ALIAS_CHALLENGER)
    found = _named(registry, versions, name, version) if version else challenger or _newest(versions, champion)
    if found is None:
        raise RegistryError(
            f"no version of {name} waits to be promoted"
            + (f": version {champion.version} is champion, and none has passed its gates since" if champion else ""),
            where=f"{registry.rest.url}/#/models/{name}",
            expected=f"a version with the alias {names.ALIAS_CHALLENGER}, or a newer one that is {verdicts.PASSED}",
            next=f"train one: perennial run {name}; or name one with --version",
        )
    if not force:
        need_unarchived(found, _page(registry, found))
        _need_passed(registry, versions, found)
        if signed:
            _need_approved(registry, found)
    return Promotion(name, found, route, champion, challenger)


def promote(registry: Registry, plan: Promotion, actor: str, reason: str = "") -> Route:
    """Do what the plan says; the route that is in force then.

    Args:
        registry: the one that the plan was made with.
        plan: of a moment ago.
        actor: the run key, or the person.
        reason: kept with the version, if there is one.

    Raises:
        RegistryError: the registry is away, or somebody else changed the route meanwhile. Plan again, and do it again.
    """
    name, version = plan.name, plan.target.version
    revive(registry, plan.target)
    route = registry.move(name, plan.route, {version: 1.0}, actor)
    _need_the_champion(registry, plan, actor)
    promoted_before = plan.target.tags.get(names.TAG_VERDICT) == verdicts.PROMOTED
    if promoted_before and not plan.is_champion:
        _record(registry, plan, actor, reason)
    if not plan.is_champion:
        if plan.champion:
            registry.set_alias(name, names.ALIAS_PREVIOUS, plan.champion.version)
        registry.set_alias(name, names.ALIAS_CHAMPION, version)
        _need_the_traffic(registry, plan)
    if not promoted_before:
        _record(registry, plan, actor, reason)
        registry.tag(name, version, names.TAG_VERDICT, verdicts.PROMOTED)
    if plan.challenger:
        registry.delete_alias(name, names.ALIAS_CHALLENGER)
    return route


def _need_the_champion(registry: Registry, plan: Promotion, actor: str) -> None:
    """The traffic is taken from the champion of the plan, and from no other: who became it meanwhile gets the traffic back."""
    now = registry.champion(plan.name)
    current, planned = (found.version if found else None for found in (now, plan.champion))
    if current in {planned, plan.target.version}:
        return
    route = registry.route(plan.name)
    if current and plan.target.version in route.live:
        registry.move(plan.name, route, {current: 1.0}, actor)
    raise _lost(
        registry, plan, f"version {current} became champion meanwhile" if current else "there is no champion any more"
    )


def _need_the_traffic(registry: Registry, plan: Promotion) -> None:
    """Who wrote the route last is champion. Where that is another, the alias goes to it, if it has not taken it already."""
    name, version = plan.name, plan.target.version
    route = registry.route(name)
    if version not in route.live:
        if len(route.live) == 1:
            registry.set_alias(name, names.ALIAS_CHAMPION, route.live[0])
        raise _lost(registry, plan, f"{route.changed_by or 'somebody'} made the route {split(route)}")
    champion = registry.champion(name)
    if champion is None or champion.version != version:
        raise _lost(registry, plan, f"version {champion.version if champion else 'none'} became champion meanwhile")


def _lost(registry: Registry, plan: Promotion, why: str) -> RegistryError:
    return RegistryError(
        f"version {plan.target.version} of {plan.name} was not promoted: {why}",
        where=_page(registry, plan.target),
        expected="nobody else who promotes or takes back at the same moment",
        next="look at the champion, then do it again: it starts from what is there",
    )


def _record(registry: Registry, plan: Promotion, actor: str, reason: str) -> None:
    name, version = plan.name, plan.target.version
    if reason:
        registry.tag(name, version, names.TAG_VERDICT_REASON, verdicts.reason_of(actor, reason))
    registry.tag(name, version, names.TAG_PROMOTED_AT, datetime.now(UTC).isoformat(timespec="milliseconds"))


def _newest(versions: list[ModelVersion], champion: ModelVersion | None) -> ModelVersion | None:
    """The newest that passed its gates after the champion was registered."""
    since = champion.number if champion else 0
    passed = [
        v
        for v in versions
        if v.tags.get(names.TAG_VERDICT) == verdicts.PASSED and v.number > since and not is_archived(v)
    ]
    return max(passed, key=lambda version: version.number, default=None)


def _named(registry: Registry, versions: list[ModelVersion], name: str, wanted: str) -> ModelVersion:
    found = next((version for version in versions if version.version == wanted), None)
    if found is None:
        raise RegistryError(
            f"{name} has no version {wanted!r}",
            where=registry.rest.url,
            expected=f"one of {_numbers(versions) or 'none: no version was trained yet'}",
        )
    return found


def _need_passed(registry: Registry, versions: list[ModelVersion], wanted: ModelVersion) -> None:
    verdict = wanted.tags.get(names.TAG_VERDICT, "")
    if verdict in PASSED:
        return
    why = wanted.tags.get(names.TAG_VERDICT_REASON)
    good = [version for version in versions if version.tags.get(names.TAG_VERDICT) in PASSED]
    raise RegistryError(
        f"version {wanted.version} of {wanted.name} {_WORDS.get(verdict, 'was not judged by its gates')}"
        + (f" ({why})" if why else ""),
        where=_page(registry, wanted),
        expected=f"a version that passed its gates: {_numbers(good) or 'there is none'}",
        next="with --force it is promoted all the same",
    )


def _need_approved(registry: Registry, wanted: ModelVersion) -> None:
    if wanted.tags.get(names.TAG_VERDICT) == verdicts.PROMOTED or _is_approved(wanted):
        return
    raise RegistryError(
        f"nobody has approved version {wanted.version} of {wanted.name}",
        where=_page(registry, wanted),
        expected=f"an approval in tag {names.TAG_SIGN_OFF}, because the pipeline's deployment.approval is required",
        next=f"perennial approve {wanted.name}; with --force it is promoted all the same",
    )


def _is_approved(version: ModelVersion) -> bool:
    try:
        found = json.loads(version.tags.get(names.TAG_SIGN_OFF, "{}"))
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("answer") == "approved"


def _page(registry: Registry, version: ModelVersion) -> str:
    return f"{registry.rest.url}/#/models/{version.name}/versions/{version.version}"


_WORDS = {verdicts.REJECTED: "was rejected", verdicts.ROLLED_BACK: "was rolled back"}


def _numbers(versions: list[ModelVersion]) -> str:
    return ", ".join(version.version for version in versions)
