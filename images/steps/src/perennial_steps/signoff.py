"""signoff: what a person answered about a challenger, kept with it. A rejected one ends the run here, before it takes any traffic.

Order of writes: the record, then the verdict, the alias last, as the mark of unfinished work. Run again, it continues.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from perennial_registry import verdicts
from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.errors import ContractError
from perennial_spec.step import APPROVE, REJECT
from perennial_steps.challenger import no
from perennial_steps.context import Outcome, StepContext

log = logging.getLogger(__name__)

NOBODY = "nobody, in time"
_MAX_TEXT = 500


def run(context: StepContext) -> Outcome:
    """Keep the answer with the version that this run trained.

    Raises:
        ContractError: nobody was asked, or the answer is neither of the two.
        RegistryError: the registry is away. Run again, it continues.
    """
    name, version = context.pipeline.name, str(context.input("train", "model_version"))
    record = _record(context)
    with Registry(context.platform.need("mlflow_url")) as registry:
        registry.tag(name, version, names.TAG_SIGN_OFF, json.dumps(record))
        why = f": {record['reason']}" if record["reason"] else ""
        if record["answer"] == "approved":
            return Outcome(f"version {version} approved by {record['by']}{why}", {"model_version": version, **record})
        refusal = f"version {version} rejected by {record['by']}{why}"
        registry.tag(name, version, names.TAG_VERDICT_REASON, refusal)
        registry.tag(name, version, names.TAG_VERDICT, verdicts.REJECTED)
        challenger = registry.by_alias(name, names.ALIAS_CHALLENGER)
        if challenger and challenger.version == version:
            registry.delete_alias(name, names.ALIAS_CHALLENGER)
    return no(refusal, version, **record)


def _record(context: StepContext) -> dict[str, str]:
    """Who answered what, when and why."""
    chosen = context.input("approve", "chosen_options")
    if chosen not in ([APPROVE], [REJECT]):
        raise ContractError(
            f"the answer is {chosen!r}", where="StepRequest.inputs.approve", expected=f"[{APPROVE!r}] or [{REJECT!r}]"
        )
    answer: dict[str, Any] = context.request.inputs["approve"]
    said = answer.get("params_input") or {}
    return {
        "answer": "approved" if chosen == [APPROVE] else "rejected",
        "by": _who(said, answer.get("responded_by_user"))[:_MAX_TEXT],
        "at": str(answer.get("responded_at") or ""),
        "reason": str(said.get("why") or "")[:_MAX_TEXT],
    }


def _who(said: dict[str, Any], user: Any) -> str:
    """The person by their Airflow user; who answered for somebody else is named beside them."""
    account = str(user.get("name") or user.get("id") or "") if isinstance(user, dict) else ""
    named = str(said.get("on_behalf_of") or "").strip()
    if named and account and named != account:
        return f"{named} (as {account})"
    return named or account or NOBODY
