"""The edge: bytes in, bytes out. Reading bounded bodies, writing JSON and errors in the form of the protocol spoken."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from perennial_serving.refusals import (
    RETRY_AFTER_SECONDS,
    NotParsed,
    Overloaded,
    TooLarge,
    WrongMediaType,
    sentence,
    status_of,
)
from perennial_spec.errors import PerennialError

log = logging.getLogger(__name__)
_MLFLOW_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "METHOD_NOT_ALLOWED",
    413: "REQUEST_LIMIT_EXCEEDED",
    415: "UNSUPPORTED_MEDIA_TYPE",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
Endpoint = Callable[[Request], Awaitable[Response]]


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON; arrays of numpy too, NaN as null."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def error_response(protocol: str, status: int, message: str) -> Response:
    """An error as clients of `protocol` read it: OIP's `error`, or MLflow's `error_code` and `message`."""
    value = (
        {"error": message}
        if protocol == "oip"
        else {"error_code": _MLFLOW_CODES.get(status, "INTERNAL_ERROR"), "message": message}
    )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    if status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return json_response(value, status, headers)


def refusal(protocol: str, error: PerennialError) -> Response:
    """The answer to a request that cannot be served."""
    return error_response(protocol, status_of(error), sentence(error))


def protocol_of(path: str) -> str:
    """Which protocol's errors a path answers with."""
    return "oip" if path.startswith("/v2") else "mlflow"


def guarded(endpoint: Endpoint) -> Endpoint:
    """`endpoint`, whose errors become answers. What was sent is in no log line, not even when the server itself is wrong."""

    async def answer(request: Request) -> Response:
        protocol = protocol_of(request.url.path)
        try:
            return await endpoint(request)
        except PerennialError as error:
            return refusal(protocol, error)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:
            log.error("%s failed: %s at %s", endpoint.__name__, type(error).__name__, _place(error))  # noqa: TRY400 (values)
            return error_response(protocol, 500, f"the server failed: {type(error).__name__}")

    return answer


@dataclass
class Budget:
    """Memory for the bodies that are being received, over all connections."""

    limit: int
    """Bytes."""
    used: int = 0

    @contextmanager
    def reading(self) -> Iterator[Reserve]:
        """Memory for one body, given back at the end."""
        reserve = Reserve(self)
        try:
            yield reserve
        finally:
            self.used -= reserve.taken


@dataclass
class Reserve:
    """The part of a budget that one body has."""

    budget: Budget
    taken: int = 0

    def take(self, size: int) -> None:
        """Raises:
        Overloaded: other bodies have it all.
        """
        budget = self.budget
        if budget.used and budget.used + size > budget.limit:
            raise Overloaded("the server is receiving too much at once", next="send it again in a moment")
        budget.used += size
        self.taken += size


async def read_body(request: Request, max_bytes: int, budget: Budget) -> bytes:
    """The request's body, unpacked if it came packed with gzip.

    Raises:
        TooLarge: it is, or says that it is, or unpacks to more than `max_bytes`; no more than that is read.
        WrongMediaType: it is packed in a way that is not read here.
        NotParsed: it is no gzip although it says so.
        Overloaded: there is no room in `budget` now.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"identity", "gzip", "x-gzip"}:
        raise WrongMediaType(f"content encoding {coding[:60]!r} is not read here", expected="gzip, or none")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 18 or int(said) > max_bytes):
        raise _too_large(max_bytes)
    with budget.reading() as reserve:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                raise _too_large(max_bytes)
            reserve.take(len(part))
            parts.append(part)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return body if coding == "identity" else _unpacked(body, max_bytes)


def _unpacked(body: bytes, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: the gzip form
    try:
        found = unpacker.decompress(body, max_bytes + 1)
    except zlib.error:
        raise NotParsed("the body is not gzip", expected="gzip, as its content encoding says") from None
    if len(found) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise NotParsed("the gzip body breaks off, or something follows it", expected="one whole gzip stream")
    return found


def need_json(request: Request) -> None:
    """Raises:
    WrongMediaType: the body says that it is something else than JSON.
    """
    kind = content_type(request).partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WrongMediaType(f"content type {kind[:60]!r} is not read here", expected="application/json")


def content_type(request: Request) -> str:
    """JSON when the request does not say."""
    return request.headers.get("content-type", "application/json")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge("the body is too large", expected=f"at most {max_bytes:,} bytes", next="send it in parts")


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
