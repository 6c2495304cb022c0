"""The challenger of a run and the champion it was judged against: what deploy, analyse, promote and rollback must agree on."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from perennial_registry import verdicts
from perennial_registry.registry import ModelVersion, Registry
from perennial_spec import names
from perennial_spec.errors import ContractError, RegistryError
from perennial_spec.route import Route
from perennial_spec.step import StepName, Verdict
from perennial_spec.units import parse_share
from perennial_steps.context import Outcome, StepContext

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contest:
    """The two versions of a rollout, as the registry has them now."""

    route: Route
    """Read before all else: whoever changes it after that is found out by its revision when it is written."""
    challenger: ModelVersion
    champion: ModelVersion | None
    judged_against: str | None
    """The version that was champion when the challenger was last evaluated."""

    @property
    def is_won(self) -> bool:
        """The challenger is champion already: an earlier attempt got this far."""
        return self.champion is not None and self.champion.version == self.challenger.version

    @property
    def is_outdated(self) -> bool:
        """It passed against another champion than today's: it must be judged again before it takes any more traffic."""
        current = self.champion.version if self.champion else None
        return self.refusal is None and not self.is_won and self.judged_against != current

    @property
    def refusal(self) -> str | None:
        """Why the challenger must not take traffic, or None."""
        verdict = self.challenger.tags.get(names.TAG_VERDICT)
        if verdict not in {verdicts.PASSED, verdicts.PROMOTED}:
            return f"version {self.challenger.version} is {verdict or 'not evaluated'}: only a version that passed its gates is deployed"
        if verdict == verdicts.PROMOTED and not self.is_won:
            return f"version {self.challenger.version} was champion before: a rollout does not bring it back"
        return None


def contest(context: StepContext, registry: Registry) -> Contest:
    """What the registry says about this run's challenger and the champion.

    Raises:
        ContractError: train or evaluate did not run before.
        RegistryError: the registry is away, or has no such version; or a third version is just being promoted.
    """
    name = context.pipeline.name
    version = str(context.input("train", "model_version"))
    first = context.input("evaluate", "champion_version")
    route = registry.route(name)
    challenger, champion = registry.get(name, version), registry.champion(name)
    _need_no_third(registry, route, challenger, champion)
    judged = challenger.tags.get(names.TAG_JUDGED_AGAINST, first) or None
    return Contest(route, challenger, champion, str(judged) if judged is not None else None)


def again(contest: Contest, before: StepName, share: float | None = None) -> Outcome:
    """The outcome of a step whose contest is outdated: first `before`, then it looks anew."""
    version, champion = contest.challenger.version, contest.champion
    was, current = _named(contest.judged_against), _named(champion.version if champion else None)
    summary = f"version {version} was judged against {was}, champion is {current} now: it is judged again"
    log.warning("%s", summary)
    outputs = {"model_version": version, **({"share": share} if share is not None else {})}
    return Outcome(summary, outputs, verdict=Verdict.PENDING, again_after=0.0, first=before)


def _need_no_third(registry: Registry, route: Route, challenger: ModelVersion, champion: ModelVersion | None) -> None:
    """A promotion takes all of the traffic first, and is champion a moment later: whoever reads in between must not act on the old one."""
    known = {challenger.version, champion.version if champion else None}
    if len(route.live) != 1 or route.live[0] in known:
        return
    third = next((found for found in registry.versions(challenger.name) if found.version == route.live[0]), None)
    if third is None or third.tags.get(names.TAG_VERDICT) != verdicts.PASSED:
        return
    raise RegistryError(
        f"version {third.version} of {third.name!r} has all of the traffic, and is not champion yet",
        where=registry.rest.url,
        expected=f"the end of its promotion by {route.changed_by or 'somebody'}",
        next=f"run the step again; when nobody promotes it any more, perennial rollback {third.name}",
    )


def share_of(context: StepContext, *, least: bool = False) -> float:
    """The parameter `share`: a number in (0, 1], or `10%`; with `least` also 0.

    Raises:
        ContractError: not given, or not a share.
    """
    given = context.param("share")
    try:
        # A plain number comes as text when the step is run by hand.
        share = parse_share(given) if not isinstance(given, str) or given.endswith("%") else float(given)
    except ValueError:
        share = -1.0
    if not (0 < share <= 1 or (least and share == 0)):
        raise ContractError(
            f"the share of the traffic is {given!r}",
            where=f"StepRequest.params of {context.request.step}",
            expected="more than 0 and at most 1, as in 0.1 or 10%",
        )
    return share


def weights(contest: Contest, share: float) -> dict[str, float]:
    """The traffic split in which the challenger takes `share`: the champion first, so that a growing challenger only takes keys from it.

    The first model takes all: nothing else could answer. The champion stays in the route with weight 0, so that servers keep it loaded.
    """
    if contest.champion is None or contest.is_won:
        return {contest.challenger.version: 1.0}
    return {contest.champion.version: round(1 - share, 12), contest.challenger.version: share}


def no(summary: str, version: str, **outputs: str | float | None) -> Outcome:
    """The outcome of a step whose answer is no."""
    return Outcome(summary, {"model_version": version, **outputs}, verdict=Verdict.FAIL, failure=summary)


def flag(context: StepContext, key: str, default: bool) -> bool:
    """An optional parameter that is true or false.

    Raises:
        ContractError: it is neither.
    """
    value = context.request.params.get(key, default)
    text = str(value).lower()
    if text not in {"true", "false"}:
        raise ContractError(
            f"{key} is {value!r}", where=f"StepRequest.params of {context.request.step}", expected="true or false"
        )
    return text == "true"


def _named(version: str | None) -> str:
    return version if version is not None else "none"
