"""One way to ask a part of the platform something, with errors that a person can act on."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

from perennial_spec.errors import PlatformError

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 10.0


def ask(
    client: httpx.Client, method: str, path: str, *, part: str, expected: Container[int] = (), **options: Any
) -> httpx.Response:
    """The answer of `part`, whatever its status below 500, or one that is `expected`.

    Raises:
        PlatformError: it is away, too slow, or answers 5xx.
    """
    import httpx

    where = f"{part} at {client.base_url}"
    try:
        response = client.request(method, path, **options)
    except httpx.TimeoutException:
        raise PlatformError(
            f"no answer within {client.timeout.read:g} s", where=where, next="perennial status"
        ) from None
    except httpx.TransportError as error:
        raise PlatformError(
            f"cannot be reached: {error}", where=where, next="perennial status; start it with: perennial up"
        ) from None
    if response.status_code >= 500 and response.status_code not in expected:
        raise PlatformError(
            f"{method} {path} was answered with {response.status_code}: {response.text[:300]}",
            where=where,
            next="perennial logs " + part.split(maxsplit=1)[0],
        )
    return response


def refused(response: httpx.Response, *, part: str) -> PlatformError:
    """A refusal in the words of the part that refused, where it has some."""
    try:
        body = response.json()
        what = str(body["error"])
    except (ValueError, KeyError, TypeError):
        return PlatformError(f"{part} refused: {said(response)}", where=part, next="perennial status")
    words = {key: str(body[key]) for key in ("where", "expected", "next") if body.get(key)}
    return PlatformError(what, **{"where": part, **words})


def said(response: httpx.Response) -> str:
    """What an answer that was not a success said, in one line."""
    return f"{response.status_code}: {' '.join(response.text.split())[:500]}"
