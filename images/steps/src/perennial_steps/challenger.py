"""The challenger of a run and the champion it was judged against: what deploy, analyse, promote and rollback must agree on."""

from __future__ import annotations

from dataclasses import dataclass

from perennial_registry import verdicts
from perennial_registry.registry import ModelVersion, Registry
from perennial_spec import names
from perennial_spec.errors import ContractError
from perennial_spec.step import Verdict
from perennial_spec.units import parse_share
from perennial_steps.context import Outcome, StepContext


@dataclass(frozen=True)
class Contest:
    """The two versions of a rollout, as the registry has them now."""

    challenger: ModelVersion
    champion: ModelVersion | None
    judged_against: str | None
    """The version that was champion when the challenger was evaluated."""

    @property
    def is_won(self) -> bool:
        """The challenger is champion already: an earlier attempt got this far."""
        return self.champion is not None and self.champion.version == self.challenger.version

    @property
    def refusal(self) -> str | None:
        """Why the challenger must not take traffic, or None."""
        verdict = self.challenger.tags.get(names.TAG_VERDICT)
        if verdict not in {verdicts.PASSED, verdicts.PROMOTED}:
            return f"version {self.challenger.version} is {verdict or 'not evaluated'}: only a version that passed its gates is deployed"
        if not self.is_won and self.judged_against != (self.champion.version if self.champion else None):
            return (
                f"judged against {_named(self.judged_against)}, champion is "
                f"{_named(self.champion.version if self.champion else None)} now: evaluate again"
            )
        return None


def contest(context: StepContext, registry: Registry) -> Contest:
    """What the registry says about this run's challenger and the champion.

    Raises:
        ContractError: train or evaluate did not run before.
        RegistryError: the registry is away, or has no such version.
    """
    name = context.pipeline.name
    version = str(context.input("train", "model_version"))
    judged = context.input("evaluate", "champion_version")
    return Contest(registry.get(name, version), registry.champion(name), str(judged) if judged is not None else None)


def share_of(context: StepContext) -> float:
    """The parameter `share`: a number in (0, 1], or `10%`.

    Raises:
        ContractError: not given, or not a share.
    """
    given = context.param("share")
    try:
        # A plain number comes as text when the step is run by hand.
        share = parse_share(given) if not isinstance(given, str) or given.endswith("%") else float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
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
