"""The edge: bytes in, bytes out. Reading bounded bodies, writing JSON and errors in the form of the protocol spoken."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from perennial_serving.refusals import RETRY_AFTER_SECONDS, TooLarge, WrongMediaType, sentence, status_of
from perennial_spec.errors import PerennialError

log = logging.getLogger(__name__)
VERSION_HEADER = "X-Perennial-Version"
ID_HEADER = "X-Perennial-Prediction-Id"
"""Only when the request has one row."""
_MLFLOW_CODES = {
    400: "BAD_REQUEST",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "METHOD_NOT_ALLOWED",
    413: "REQUEST_LIMIT_EXCEEDED",
    415: "UNSUPPORTED_MEDIA_TYPE",
    503: "TEMPORARILY_UNAVAILABLE",
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


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The request's body.

    Raises:
        TooLarge: it is, or says that it is, longer than `max_bytes`; no more than that is read.
    """
    said = request.headers.get("content-length", "")
    if said.isdecimal() and len(said) < 19 and int(said) > max_bytes:
        raise _too_large(max_bytes)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


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
