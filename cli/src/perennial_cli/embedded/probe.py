"""Is a part ready? Short, bounded, and past any proxy: the parts are on this machine."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from perennial_cli.embedded.part import Answers, Beat, Http, Ready, Tcp

TIMEOUT = 3.0
"""Seconds for a connection and for each read."""
LARGEST = 1_000_000
"""Bytes of an answer that are read at most."""


def is_ready(ready: Ready, started: float) -> bool:
    """Whether the part answers. `started`: when its process started, seconds since the epoch. Never raises."""
    try:
        match ready:
            case Tcp():
                with socket.create_connection((ready.host, ready.port), timeout=TIMEOUT):
                    return True
            case Http():
                return _get(ready.url)[0] < 400
            case Answers():
                return _succeeds(ready.command)
            case Beat():
                status, body = _get(ready.url)
                return status < 400 and _is_newer(json.loads(body), ready.path, started)
    except (OSError, http.client.HTTPException, ValueError, subprocess.TimeoutExpired):
        return False


def _succeeds(command: tuple[str, ...]) -> bool:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode == 0


def _get(url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        response = connection.getresponse()
        return response.status, response.read(LARGEST)
    finally:
        connection.close()


def _is_newer(document: Any, path: tuple[str, ...], started: float) -> bool:
    for key in path:
        if not isinstance(document, dict):
            return False
        document = document.get(key)
    if not isinstance(document, str):
        return False
    beat = datetime.fromisoformat(document)
    return (beat if beat.tzinfo else beat.replace(tzinfo=UTC)).timestamp() > started
