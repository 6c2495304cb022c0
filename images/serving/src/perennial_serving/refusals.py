"""Requests that are answered with an error, and the status of each.

    RequestError (perennial_spec)     400  a field is missing, of the wrong type or the wrong length
    └── Refusal
        ├── NotParsed                 400  the body is not what its content type says
        ├── Unauthorized              401  with WWW-Authenticate: no key, or a wrong one
        ├── UnknownModel              404
        ├── UnknownVersion            404
        ├── TooLarge                  413  too many bytes or rows
        ├── WrongMediaType            415
        ├── NotReady                  503  with Retry-After: routed, and still loading
        └── Overloaded                503  with Retry-After: nowhere to put it, or too much at once

Messages are for the client alone: they may quote a field's name, and the server never logs them.
"""

from __future__ import annotations

from collections.abc import Iterable

from perennial_spec.errors import PerennialError, RequestError, nearest

RETRY_AFTER_SECONDS = 1


class Refusal(RequestError):
    """A request that is answered with `status`."""

    status = 400


class NotParsed(Refusal):
    """The body is not what its content type says."""


class Unauthorized(Refusal):
    """No key, or one that is not good here."""

    status = 401

    @classmethod
    def because(cls, wrong: bool) -> Unauthorized:
        """Args:
        wrong: there was something that might have been a key.
        """
        return cls(
            "the API key is not good here" if wrong else "an API key is needed",
            expected="Authorization: Bearer KEY, or X-API-Key: KEY",
            next="ask who runs this server for a key",
        )


class UnknownModel(Refusal):
    """No pipeline of that name is served."""

    status = 404

    @classmethod
    def of(cls, name: str, served: Iterable[str]) -> UnknownModel:
        known = sorted(served)
        guess = nearest(name, known)
        return cls(
            f"no model named {name[:80]!r} is served here",
            expected=f"one of {', '.join(known)}" if known else "a pipeline with a route; none is served yet",
            next=f"did you mean {guess!r}?" if guess else "GET / lists what is served",
        )


class UnknownVersion(Refusal):
    """That version is not loaded."""

    status = 404


class TooLarge(Refusal):
    """Too many bytes or rows."""

    status = 413


class WrongMediaType(Refusal):
    """A content type that the endpoint does not read."""

    status = 415


class NotReady(Refusal):
    """Known, and not able to answer yet."""

    status = 503


class Overloaded(Refusal):
    """Nowhere to put what was sent."""

    status = 503


def status_of(error: PerennialError) -> int:
    """The HTTP status that answers `error`."""
    return error.status if isinstance(error, Refusal) else 400 if isinstance(error, RequestError) else 500


def sentence(error: PerennialError) -> str:
    """The error on one line."""
    parts = [f"{error.where}: {error.what}" if error.where else error.what]
    parts += [f"expected {error.expected}"] if error.expected else []
    parts += [error.next] if error.next else []
    return "; ".join(parts)
