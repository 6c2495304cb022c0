"""Reading requests: bounded, as JSON of the expected shape, with a clear answer to anything else."""

from __future__ import annotations

import asyncio
import re
import uuid
from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request

from perennial_spec.errors import RequestError
from perennial_spec.units import Duration, format_duration

MAX_BODY = 1024 * 1024
"""Bytes."""
BODY_SECONDS = 10.0
"""Until the whole body has come."""
MAX_PAUSE = timedelta(days=366)
"""Whoever means longer takes the triggers out of the pipeline's spec."""
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""Escaped in JSON; not behind an escaped backslash. PostgreSQL stores no such text."""
_Body = TypeVar("_Body", bound=BaseModel)
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]


class TooLarge(RequestError):
    """The body has more bytes than any honest one."""


class TooSlow(RequestError):
    """The body takes longer to come than any honest one."""


class RunRequest(BaseModel):
    """A person asks for a training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: Line
    actor: Name


class DataRequest(BaseModel):
    """Somebody says that new data has arrived."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: Line = "new data has arrived"
    actor: Name | None = None


class RollbackNote(BaseModel):
    """A person takes the traffic back, past the controller: it is told, so that the ledger knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: Line
    actor: Name
    to: Name
    """The version that is to serve."""
    leaving: tuple[Name, ...] = Field(default=(), max_length=20)
    """The versions that are rolled back."""


class PromotionNote(BaseModel):
    """A person makes a version champion, past the controller: it is told, so that the ledger knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: Line
    actor: Name
    to: Name
    """The version that is to be champion."""
    before: Name | None = None
    """The champion until now."""


def _of_bounded_length(duration: timedelta) -> timedelta:
    if not timedelta(0) < duration <= MAX_PAUSE:
        raise ValueError(f"expected more than 0 and at most {format_duration(MAX_PAUSE)}, as in 2h")
    return duration


class PauseRequest(BaseModel):
    """A person pauses retraining, for some time or until somebody resumes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    reason: Line
    actor: Name
    lasts: Annotated[Duration, AfterValidator(_of_bounded_length)] | None = Field(default=None, alias="for")


class ResumeRequest(BaseModel):
    """A person ends a pause."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: Line = "resumed"
    actor: Name


async def read(request: Request, shape: type[_Body]) -> _Body:
    """The body as `shape`.

    Raises:
        TooLarge: more than `MAX_BODY` bytes.
        TooSlow: it takes longer than `BODY_SECONDS`.
        RequestError: not JSON, or not of that shape; names the field.
    """
    return parse(request, await read_bytes(request), shape)


async def read_bytes(request: Request) -> bytes:
    """The body as it came.

    Raises:
        TooLarge: more than `MAX_BODY` bytes.
        TooSlow: it takes longer than `BODY_SECONDS`.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return bytes(await _body(request))
    except TimeoutError:
        raise TooSlow(
            f"the body has not come within {BODY_SECONDS:g} s", where=request.url.path, next="send it again"
        ) from None


def parse(request: Request, body: bytes, shape: type[_Body]) -> _Body:
    """A body as `shape`.

    Raises:
        RequestError: not JSON, or not of that shape; names the field.
    """
    if _NUL.search(body):
        raise RequestError("the body holds a NUL character", where=request.url.path, expected="text that can be stored")
    try:
        return shape.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RequestError(
            f"{field}: {first['msg']}" if field else first["msg"],
            where=request.url.path,
            expected=f"JSON of {shape.__name__}: {', '.join(field.alias or name for name, field in shape.model_fields.items())}",
        ) from None


async def _body(request: Request) -> bytearray:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge(
                f"the body has more than {MAX_BODY} bytes", where=request.url.path, expected=f"at most {MAX_BODY} bytes"
            )
    return body


def number(request: Request, name: str, default: int, most: int) -> int:
    """A parameter of the query: a number from 1 to `most`.

    Raises:
        RequestError: it is something else.
    """
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not 1 <= int(text) <= most:
        raise RequestError(f"{name} is {text[:40]!r}", where=request.url.path, expected=f"a number from 1 to {most}")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """A parameter of the query that is true or false, and false when it is not there.

    Raises:
        RequestError: it is something else.
    """
    text = request.query_params.get(name, "false").lower()
    if text not in {"true", "false"}:
        raise RequestError(f"{name} is {text[:40]!r}", where=request.url.path, expected="true or false")
    return text == "true"


def idempotency_key(request: Request) -> str:
    """The caller's Idempotency-Key, or one that is used once.

    Raises:
        RequestError: it is too long.
    """
    key = request.headers.get("idempotency-key", "").strip()
    if len(key) > 200:
        raise RequestError(
            "the Idempotency-Key is too long", where="Idempotency-Key", expected="at most 200 characters"
        )
    return key or uuid.uuid4().hex
