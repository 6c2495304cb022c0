"""The bearer token that every caller but a health check and Prometheus must show."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

from perennial_spec.errors import PlatformError


def _password(given: str) -> bytes:
    """The password of HTTP Basic (RFC 7617); empty when it is none, which no token is."""
    try:
        return base64.b64decode(given.strip(), validate=True).partition(b":")[2]
    except (ValueError, UnicodeEncodeError):
        return b""


class TokenFile:
    """A secret in a file. A new secret in the file holds from the next request on."""

    def __init__(self, path: str, variable: str = "PERENNIAL_TOKEN_FILE") -> None:
        self._path, self._variable = Path(path), variable
        self._stamp: tuple[int, int] | None = None
        self._token = b""
        self._read()

    def accepts(self, header: str | None, *, basic: bool = False) -> bool:
        """Whether an Authorization header carries the token; compared in constant time.

        Args:
            header: of the request.
            basic: also as the password of HTTP Basic, whoever the user is.
        """
        scheme, _, given = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._read())
        if scheme.lower() == "basic" and basic:
            return hmac.compare_digest(_password(given), self._read())
        return False

    @property
    def secret(self) -> bytes:
        """What the file holds now."""
        return self._read()

    def _read(self) -> bytes:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                token = self._path.read_bytes().strip()
                if not token:
                    raise ValueError("the file is empty")
                self._token, self._stamp = token, stamp
        except (OSError, ValueError) as error:
            if not self._token:
                raise PlatformError(
                    f"the token cannot be read: {getattr(error, 'strerror', None) or error}",
                    where=f"{self._variable}={self._path}",
                    expected="a file that holds a secret of at least one character",
                ) from None
        return self._token
