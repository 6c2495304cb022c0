"""The controller: ask for a run, announce data, read its decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from perennial_cli.clients.http import TIMEOUT_SECONDS, ask, refused, said
from perennial_spec.errors import PlatformError
from perennial_spec.platform import Platform


@dataclass(frozen=True)
class Decision:
    """One row of the ledger, as far as people read it."""

    id: int
    kind: str
    pipeline: str
    decision: str
    reason: str
    dag_id: str | None
    run_id: str | None
    delivery: str | None
    duplicates: int
    received_at: str
    alert: str | None
    actor: str | None
    summary: str
    """What came in, in words."""
    payload: dict[str, Any]
    """What came in, as it came: an alert's labels, annotations and startsAt."""
    action: str | None
    trail: list[dict[str, str]]
    """Each decision in turn: at, decision, reason."""
    last_error: str | None
    outcome: str | None
    finished_at: str | None
    resolved_at: str | None
    model_version: str | None
    data_version: int | None
    successor_id: int | None
    """The row that asks again, because this one's run did not succeed and the alert still fires."""

    @property
    def received(self) -> datetime:
        return datetime.fromisoformat(self.received_at)

    @property
    def started_run(self) -> bool:
        """Whether a run of its own stands behind it. What the controller does itself, a rollback, is none."""
        return self.delivery is not None and not self.rolls_back

    @property
    def rolls_back(self) -> bool:
        """Whether the controller takes the traffic back for it."""
        return self.decision == "rolling_back"

    @classmethod
    def of(cls, row: dict[str, Any]) -> Decision:
        return cls(
            id=row["id"],
            kind=row["kind"],
            pipeline=row["pipeline"],
            decision=row["decision"],
            reason=row.get("reason") or "",
            dag_id=row.get("dag_id"),
            run_id=row.get("run_id"),
            delivery=row.get("delivery"),
            duplicates=row.get("duplicates") or 0,
            received_at=row["received_at"],
            alert=row.get("alert"),
            actor=row.get("actor"),
            summary=row["summary"],
            payload=row.get("payload") or {},
            action=row.get("action"),
            trail=row.get("trail") or [],
            last_error=row.get("last_error"),
            outcome=row.get("outcome"),
            finished_at=row.get("finished_at"),
            resolved_at=row.get("resolved_at"),
            model_version=row.get("model_version"),
            data_version=row.get("data_version"),
            successor_id=row.get("successor_id"),
        )


@dataclass(frozen=True)
class Pause:
    """A pause that is in force. Times are ISO 8601, UTC."""

    pipeline: str
    """`*` for all."""
    since: str
    until: str | None
    actor: str
    reason: str


@dataclass(frozen=True)
class Rehearsal:
    """What would be decided now."""

    decision: str
    reason: str
    others: list[dict[str, Any]]
    """What is open: id, kind, summary, now (the decision that is in force), decision, reason."""


def warnings(url: str, seconds: float = 2.0) -> list[str]:
    """What the controller at `url` wants people to know though it is ready; nothing when it does not answer, for others tell that."""
    import httpx

    try:
        answer = httpx.get(f"{url}/readyz", timeout=seconds, trust_env=False)
    except httpx.HTTPError:
        return []
    found = (line.partition("warning: ") for line in answer.text.splitlines())
    return [text for before, mark, text in found if mark and not before] if answer.is_success else []


class Controller:
    """The controller's JSON interface, as the token in `PERENNIAL_TOKEN_FILE` allows.

    Args:
        seconds: for each answer.
    """

    def __init__(self, platform: Platform, seconds: float = TIMEOUT_SECONDS) -> None:
        import httpx

        token = Path(platform.need("token_file")).read_text().strip()
        self._client = httpx.Client(
            base_url=platform.need("controller_url"),
            headers={"Authorization": f"Bearer {token}"},
            timeout=seconds,
        )

    def close(self) -> None:
        self._client.close()

    def request_run(self, pipeline: str, reason: str, actor: str) -> Decision:
        """Ask for a training run; the answer says what was decided and why."""
        return self._post(f"/api/v1/pipelines/{pipeline}/runs", {"reason": reason, "actor": actor})

    def rehearse_run(self, pipeline: str) -> Rehearsal:
        """What would be decided on a request for a training run, and on what is open; nothing is written."""
        path = f"/api/v1/pipelines/{pipeline}/runs"
        body = {"reason": "dry run", "actor": "perennial"}
        response = ask(self._client, "POST", path, part="controller", json=body, params={"dry_run": "true"})
        if response.status_code != 200:
            raise refused(response, part="controller")
        return Rehearsal(**response.json())

    def announce_data(self, pipeline: str, summary: str, key: str | None = None) -> Decision:
        """Tell that new data is at the sources: it is landed and validated. The same key twice starts one run."""
        return self._post(f"/api/v1/pipelines/{pipeline}/data", {"reason": summary, "actor": "perennial"}, key=key)

    def pauses(self) -> list[Pause]:
        """What is paused now."""
        return self._pauses(ask(self._client, "GET", "/api/v1/pauses", part="controller"))

    def pause(self, pipeline: str | None, reason: str, actor: str, lasts: str | None) -> list[Pause]:
        """Pause a pipeline, or all when None, for as long as `lasts` says (`2h`), or until somebody resumes; what is paused then."""
        body = {"reason": reason, "actor": actor, **({"for": lasts} if lasts else {})}
        return self._pauses(ask(self._client, "POST", _of(pipeline, "pause"), part="controller", json=body))

    def resume(self, pipeline: str | None, reason: str, actor: str) -> list[Pause]:
        """End the pause of a pipeline, or the one of all when None; what is paused still."""
        body = {"reason": reason, "actor": actor}
        return self._pauses(ask(self._client, "POST", _of(pipeline, "resume"), part="controller", json=body))

    def note_rollback(self, pipeline: str, reason: str, actor: str, to: str, leaving: list[str]) -> None:
        """Put on record that `actor` takes the traffic back to version `to`."""
        self._note(
            f"/api/v1/pipelines/{pipeline}/rollbacks", {"reason": reason, "actor": actor, "to": to, "leaving": leaving}
        )

    def note_promotion(self, pipeline: str, reason: str, actor: str, to: str, before: str | None) -> None:
        """Put on record that `actor` makes version `to` champion; `before` is the champion until now."""
        self._note(
            f"/api/v1/pipelines/{pipeline}/promotions", {"reason": reason, "actor": actor, "to": to, "before": before}
        )

    def _note(self, path: str, body: dict[str, Any]) -> None:
        response = ask(self._client, "POST", path, part="controller", json=body)
        if response.status_code != 200:
            raise refused(response, part="controller")

    def _pauses(self, response: Any) -> list[Pause]:
        if response.status_code != 200:
            raise refused(response, part="controller")
        return [Pause(**row) for row in response.json()["pauses"]]

    def overview(self) -> dict[str, Any]:
        """All pipelines at a glance, as the controller's pages show them."""
        return self._told("/api/v1/pipelines")

    def timeline(self, pipeline: str, limit: int, before: int | None = None) -> dict[str, Any]:
        """The story of a pipeline, the newest first; events older than `before`, when it is given."""
        asked = {"limit": limit} if before is None else {"limit": limit, "before": before}
        return self._told(f"/api/v1/pipelines/{pipeline}/timeline", asked)

    def _told(self, path: str, params: dict[str, int] | None = None) -> dict[str, Any]:
        response = ask(self._client, "GET", path, part="controller", params=params)
        if response.status_code != 200:
            raise refused(response, part="controller")
        found: dict[str, Any] = response.json()
        return found

    def decision(self, id: int) -> Decision | None:
        """One row of the ledger, or None."""
        response = ask(self._client, "GET", f"/api/v1/decisions/{id}", part="controller")
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise refused(response, part="controller")
        return Decision.of(response.json())

    def decisions(self, pipeline: str, limit: int = 50, before: int | None = None) -> list[Decision]:
        """The newest decisions first; those older than the row `before`, when it is given."""
        asked = {"limit": limit} if before is None else {"limit": limit, "before": before}
        response = ask(self._client, "GET", f"/api/v1/pipelines/{pipeline}/decisions", part="controller", params=asked)
        if response.status_code != 200:
            raise PlatformError(f"no decisions: {said(response)}", where="controller", next="perennial check")
        return [Decision.of(row) for row in response.json()["decisions"]]

    def _post(self, path: str, body: dict[str, Any], key: str | None = None) -> Decision:
        headers = {"Idempotency-Key": key} if key else {}
        response = ask(self._client, "POST", path, part="controller", json=body, headers=headers)
        if response.status_code >= 400:
            raise PlatformError(
                f"the controller refused: {said(response)}", where=path, next="perennial check; perennial status"
            )
        return Decision.of(response.json())


def _of(pipeline: str | None, order: str) -> str:
    return f"/api/v1/pipelines/{pipeline}/{order}" if pipeline else f"/api/v1/{order}"
