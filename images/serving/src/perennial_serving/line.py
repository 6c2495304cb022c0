"""A connection to the registry that is kept alive. Whatever is at the other end: a call ends in time, and its answer has a bounded size."""

from __future__ import annotations

import socket
import ssl
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from perennial_spec.errors import RegistryError

_STEP = 2**18
"""Bytes that are unpacked at once."""
_GZIP = 16 + zlib.MAX_WBITS


class Line:
    """Calls to one address, one at a time. `cut` may come from any thread; everything else from one.

    Args:
        url: what the paths of calls are below.
        seconds: for connecting, and between two parts of an answer.
        tls: how to check the other end, where `url` begins with https.
    """

    def __init__(self, url: str, seconds: float, tls: ssl.SSLContext) -> None:
        self._client = httpx.Client(
            base_url=url,
            timeout=seconds,
            verify=tls,
            follow_redirects=False,
            headers={"accept-encoding": "gzip"},
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None),
        )
        self._socket: socket.socket | None = None
        self._fresh = False
        """The connection was made for the call that is under way."""
        self._over = False
        """The time of the call that is under way is over."""
        self._closed = False

    def get(self, path: str, params: Mapping[str, str], most: int, seconds: float) -> bytes:
        """An answer; see `pieces`."""
        return b"".join(self.pieces(path, params, most, seconds))

    def pieces(self, path: str, params: Mapping[str, str], most: int, seconds: float) -> Iterator[bytes]:
        """An answer, as it comes in, unpacked.

        Args:
            most: bytes of a whole answer.
            seconds: for all of it. The timeouts of sockets do not say: they begin anew with every byte.

        Raises:
            RegistryError: no answer, or not the whole of it in this time, or a larger one, or one that is no success.
        """
        self._over = self._closed
        timer = threading.Timer(seconds, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            with self._answer(path, params) as answer:
                answer.raise_for_status()
                for piece in _unpacked(answer):
                    most -= len(piece)
                    if most < 0:
                        raise away("a larger answer than can be", path)
                    yield piece
        except (httpx.HTTPError, zlib.error) as error:
            raise away(f"nothing whole within {seconds:.3g} s" if self._over else _said(error), path) from None
        finally:
            timer.cancel()

    def cut(self) -> None:
        """End the call that is under way, with an error, and all that would follow."""
        self._closed = True
        self._give_up()

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _answer(self, path: str, params: Mapping[str, str]) -> Iterator[httpx.Response]:
        request = self._client.build_request("GET", path, params=params, extensions={"trace": self._note})
        self._fresh = False
        try:
            answer = self._client.send(request, stream=True)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            if self._fresh or self._over:
                raise
            answer = self._client.send(
                request, stream=True
            )  # a connection that nobody used may be closed at any moment
        try:
            yield answer
        finally:
            answer.close()

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """httpx says what it does: here, which socket it has opened."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._fresh, self._socket = True, info["return_value"].get_extra_info("socket")
            if self._over:
                self._shut()

    def _give_up(self) -> None:
        self._over = True
        self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # also of TLS: no farewell, which might block


def away(got: str, where: str) -> RegistryError:
    """The error of a registry that does not answer, or not as MLflow does."""
    return RegistryError(
        f"the registry does not answer as it should ({got})",
        where=where,
        expected="an MLflow tracking server with --serve-artifacts at MLFLOW_TRACKING_URI",
        next="see that the MLflow server runs: perennial status",
    )


def _said(error: Exception) -> str:
    return f"HTTP {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__


def _unpacked(answer: httpx.Response) -> Iterator[bytes]:
    """The body in pieces of at most `_STEP` bytes, or as they came: a little that is packed may be very much."""
    if answer.headers.get("content-encoding", "identity") == "identity":
        yield from answer.iter_raw()
        return
    unpack = zlib.decompressobj(_GZIP)
    for part in answer.iter_raw():
        rest = part
        while rest and not unpack.eof:
            yield unpack.decompress(rest, _STEP)
            rest = unpack.unconsumed_tail
    yield unpack.flush()
    if not unpack.eof:
        raise zlib.error("it breaks off")
