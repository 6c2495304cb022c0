"""Who may ask, and over which wire: API keys from a file, and the certificate for TLS."""

from __future__ import annotations

import logging
import os
import ssl
import time
from hashlib import sha256
from pathlib import Path

from perennial_serving.settings import Settings
from perennial_spec.errors import PlatformError

log = logging.getLogger(__name__)
MIN_KEY = 16
"""Characters; anything shorter can be guessed."""
_LOOK_SECONDS = 1.0
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. All of TLS 1.3's are good."""
Stamp = tuple[int, int, int]


class Keys:
    """The keys in a file, of which only digests are kept.

    A key is looked up by its digest, so the time that it takes says nothing about how much of a wrong key is right. The file is
    read again when it changes. One that cannot be used changes nothing then: the keys before stay good, and the log says so.
    """

    def __init__(self, path: Path, digests: frozenset[bytes], stamp: Stamp | None) -> None:
        self._path, self._digests, self._stamp = path, digests, stamp
        self._look_at = time.monotonic() + _LOOK_SECONDS

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Read the file.

        Raises:
            PlatformError: it cannot be read, has no key, or a line is not a key; names the line, never what is in it.
        """
        stamp = _stamp(path)
        return cls(path, _digests(path), stamp)

    def allow(self, authorization: bytes | None, api_key: bytes | None) -> bool:
        """Whether one of the two headers holds a key.

        Args:
            authorization: value of `Authorization`, such as b"Bearer KEY"; other schemes hold no key.
            api_key: value of `X-API-Key`.
        """
        if time.monotonic() >= self._look_at:
            self._look()
        if api_key is not None and sha256(api_key).digest() in self._digests:
            return True
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return False
        return sha256(authorization[7:].strip()).digest() in self._digests

    def _look(self) -> None:
        self._look_at = time.monotonic() + _LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = _digests(self._path)
        except PlatformError as error:
            log.error("%s; the keys before stay good", error.what)  # noqa: TRY400 (the reason is the whole story)
        else:
            log.info("API keys read again: %d", len(self._digests))


def _stamp(path: Path) -> Stamp | None:
    """Changes when the file is written or replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _digests(path: Path) -> frozenset[bytes]:
    what = f"the file of API keys {path}"
    expected = f"one key or name:key a line, at least {MIN_KEY} visible ASCII characters each"
    next = "make a key with: openssl rand -hex 32"
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError as error:
        raise PlatformError(
            f"{what} cannot be read: {error.strerror}",
            expected=expected,
            next="correct or unset PERENNIAL_SERVING_API_KEYS_FILE",
        ) from None
    except UnicodeDecodeError:
        raise PlatformError(f"{what} is not ASCII", expected=expected, next=next) from None
    found = set()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key = text.partition(":")[2].strip() if ":" in text else text
        if len(key) < MIN_KEY or not all("!" <= character <= "~" for character in key):
            raise PlatformError(f"{what} has no key in line {number}", expected=expected, next=next)
        found.add(sha256(key.encode()).digest())
    if not found:
        raise PlatformError(f"{what} has no key", expected=expected, next=next)
    return frozenset(found)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What uvicorn and gRPC's neighbours need to speak TLS; None: plain HTTP.

    Raises:
        PlatformError: a file is missing, is not what it should be, or the key is not the certificate's.
    """
    if not (settings.tls_cert or settings.tls_key or settings.tls_client_ca):
        return None
    for field in ("tls_cert", "tls_key", "tls_client_ca"):
        _check(field, getattr(settings, field), needed=field != "tls_client_ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _load(context, settings)
    if settings.tls_client_ca:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError:
            raise PlatformError(
                f"{settings.tls_client_ca} holds no certificate of an authority",
                expected="PEM: -----BEGIN CERTIFICATE-----",
                next="correct or unset PERENNIAL_SERVING_TLS_CLIENT_CA",
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def renew(context: ssl.SSLContext, settings: Settings) -> None:
    """Take up new certificate and key files, for connections from now on.

    Raises:
        PlatformError: as `tls_context`; then the certificate before stays in use.
    """
    tls_context(settings)  # a failure half-way would leave `context` with one file's certificate and the other's key
    _load(context, settings)


def _check(field: str, path: str, needed: bool) -> None:
    name = f"PERENNIAL_SERVING_{field.upper()}"
    if not path:
        if not needed:
            return
        raise PlatformError(
            f"{name} is not set",
            expected="certificate and key: TLS needs both",
            next=f"set {name}, or unset the other PERENNIAL_SERVING_TLS variables",
        )
    if not os.access(path, os.R_OK) or Path(path).is_dir():
        why = "is not there" if not Path(path).exists() else "cannot be read by this process"
        raise PlatformError(f"{path} {why}", expected="a PEM file", next=f"correct {name}")


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    try:
        # Without the function, OpenSSL would ask the terminal for the password of an encrypted key, and wait.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise _misfit(settings, getattr(error, "reason", None) or "") from None


def _misfit(settings: Settings, reason: str) -> PlatformError:
    cert, key = settings.tls_cert, settings.tls_key
    if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
        return PlatformError(
            f"the private key in {key} does not belong to the certificate in {cert}",
            expected="the key that the certificate was made for",
            next="correct PERENNIAL_SERVING_TLS_CERT or PERENNIAL_SERVING_TLS_KEY",
        )
    if "ENCRYPTED PRIVATE KEY" in _head(key) or "Proc-Type: 4,ENCRYPTED" in _head(key):
        return PlatformError(
            f"the private key in {key} is encrypted",
            expected="a key without a password, in a file that only the server may read",
            next=f"decrypt it with: openssl pkey -in {key} -out plain.pem",
        )
    wrong, kind = (key, "private key") if "CERTIFICATE-----" in _head(cert) else (cert, "certificate")
    return PlatformError(
        f"{wrong} holds no {kind} that can be used",
        expected=f"PEM: -----BEGIN {kind.upper()}-----",
        next="correct PERENNIAL_SERVING_TLS_CERT or PERENNIAL_SERVING_TLS_KEY",
    )


def _head(path: str) -> str:
    return Path(path).read_text(errors="replace")[:65536]
