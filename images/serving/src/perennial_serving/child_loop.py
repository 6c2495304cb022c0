"""The child's side of a child process: reads a call, answers it, reads the next.

Started as `python -P -m <module> <file descriptor of the socket> <bytes of memory, 0 for any>`. A thread of its own reads the line: when
the server is gone the process ends at once, also in the middle of a call.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import PurePath
from queue import SimpleQueue
from typing import Any

from perennial_features.code import Array
from perennial_serving.frames import PREFIX, Head, decode, encode, lengths
from perennial_spec.errors import PerennialError

Answer = tuple[Head, dict[str, Array]]
Handler = Callable[[Head, dict[str, Array]], Answer]
_Call = tuple[Head, dict[str, Array]]


def serve(handler: Handler) -> None:
    """Answer calls until the server closes the line. What `handler` raises is told to the server, and the next call is read."""
    for asked in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # sent to all of us, they are the server's: it drains, and then closes the line
        signal.signal(asked, signal.SIG_IGN)
    os.dup2(2, 1)  # a model that prints must not be mistaken for the server
    line = socket.socket(fileno=int(sys.argv[1]))
    if memory := int(sys.argv[2]):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    calls: SimpleQueue[_Call] = SimpleQueue()
    threading.Thread(target=_read, args=(line, calls), daemon=True).start()
    while True:
        line.sendall(_answer(handler, *calls.get()))


def _answer(handler: Handler, head: Head, columns: dict[str, Array]) -> bytes:
    try:
        return encode(*handler(head, columns))
    except Exception as error:  # whatever a model raises: the process outlives it
        return encode({"failure": _failure(error)}, {})


def _failure(error: Exception) -> dict[str, Any]:
    """What failed and where. The message may quote what was sent: it is for the one who loads the model, never for a log."""
    if isinstance(error, PerennialError):
        told = {"what": error.what, "where": error.where, "expected": error.expected, "next": error.next}
    else:
        told = {"what": str(error)[:1000], "where": _place(error), "expected": "", "next": ""}
    return {**told, "kind": type(error).__name__}


def _place(error: Exception) -> str:
    """The last line that failed, as `file.py:12`."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _read(line: socket.socket, calls: SimpleQueue[_Call]) -> None:
    try:
        while True:
            head, columns = lengths(bytes(_exactly(line, PREFIX.size)))
            calls.put(decode(bytes(_exactly(line, head)), _exactly(line, columns)))
    except (OSError, EOFError):
        os._exit(0)
    except BaseException:  # out of step, or out of memory: the server sees the line end
        traceback.print_exc()
        os._exit(1)


def _exactly(line: socket.socket, size: int) -> bytearray:
    found = bytearray(size)
    rest = memoryview(found)
    while rest:
        count = line.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return found
