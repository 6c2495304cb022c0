"""What stands where another server should be, and speaks HTTP as it was told to, or something else."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

Speak = Callable[[socket.socket], None]


class Stranger:
    """A listener that reads each request's head, and then does what it was made to do."""

    def __init__(self, speak: Speak, tls: ssl.SSLContext | None = None) -> None:
        self.speak, self._tls = speak, tls
        self.connections = 0
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(sock,), daemon=True).start()

    def _carry(self, sock: socket.socket) -> None:
        with self._tls.wrap_socket(sock, server_side=True) if self._tls else sock as sock:
            try:
                while head := head_of(sock):
                    self.heads.append(head)
                    self.speak(sock)
            except OSError:
                return


def head_of(sock: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        data = sock.recv(65536)
        if not data:
            return b""
        found += data
    return found


def answer(body: bytes, status: str = "200 OK", extra: str = "") -> Speak:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode()
    return lambda sock: sock.sendall(head + body)


def tell(value: Any) -> Speak:
    return answer(json.dumps(value).encode())
