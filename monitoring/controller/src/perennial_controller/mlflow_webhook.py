"""MLflow's webhook: what changed in the registry, also past us, as events of the ledger.

Signed as MLflow 3 signs (mlflow/webhooks/delivery.py, after Standard Webhooks): HMAC-SHA256 over `delivery id.timestamp.body`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from perennial_controller.events import NewEvent
from perennial_spec import names
from perennial_spec.errors import RequestError

SIGNATURE, TIMESTAMP, DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
WINDOW_SECONDS = 300
"""A delivery that is older, or from a later time, is taken for one that somebody has recorded and plays again."""
_MAX_ID = 200


class Unsigned(RequestError):
    """The request does not show that it is from the MLflow that knows our secret."""


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Data(_Foreign):
    """What all payloads that matter here have some of."""

    name: str = Field(max_length=500)
    version: str | None = Field(default=None, max_length=20)
    alias: str | None = Field(default=None, max_length=200)
    key: str | None = Field(default=None, max_length=250)
    value: str | None = Field(default=None, max_length=5000)


class Delivery(_Foreign):
    """The body of one webhook call."""

    entity: str = Field(max_length=100)
    action: str = Field(max_length=100)
    data: Data


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now: datetime) -> str:
    """The id of the delivery, if it is signed with the secret and was sent a moment ago.

    Args:
        secret: shared with MLflow.
        headers: of the request, names in lower case.
        body: as it came.
        now: aware.

    Raises:
        Unsigned: a header is missing, the signature is wrong, or the time is not about now.
    """
    id_, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
    expected = f"{DELIVERY}, {TIMESTAMP} and {SIGNATURE}, as MLflow 3 sends them to a webhook with a secret"
    if not id_ or len(id_) > _MAX_ID or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise Unsigned("the request is not signed", expected=expected)
    signed = b".".join((id_.encode(), timestamp.encode(), body))
    good = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest())
    version, _, given = headers.get(SIGNATURE, "").partition(",")
    if version != "v1" or not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), good):
        raise Unsigned(
            "the signature is wrong", expected=expected, next="give MLflow and the controller the same secret"
        )
    if abs(now.timestamp() - int(timestamp)) > WINDOW_SECONDS:
        raise Unsigned(
            "the request is not of now",
            expected=f"a timestamp within {WINDOW_SECONDS} s",
            next="see that both clocks are right",
        )
    return id_


def event_of(delivery: Delivery, id_: str, pipelines: Collection[str]) -> NewEvent | None:
    """The event that a delivery is; None: it is about another model, or of no interest here."""
    data = delivery.data
    said = _said(delivery) if data.name in pipelines else None
    if said is None:
        return None
    payload = delivery.model_dump(mode="json", exclude_none=True)
    return NewEvent("registry", data.name, f"mlflow:{id_}", said, payload, actor="MLflow")


def _said(delivery: Delivery) -> str | None:
    data, what = delivery.data, (delivery.entity, delivery.action)
    if what == ("model_version", "created"):
        return f"version {data.version} was registered"
    if what == ("model_version_alias", "created"):
        return f"alias {data.alias} -> version {data.version}"
    if what == ("model_version_alias", "deleted"):
        return f"alias {data.alias} was taken away"
    if what == ("model_version_tag", "set") and data.key == names.TAG_VERDICT:
        return f"version {data.version} is {(data.value or '').replace('_', ' ')}"
    return None
