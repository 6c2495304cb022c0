"""A child process that is followed line by line and never outlives its caller."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

GRACE_SECONDS = 3.0
"""Between SIGTERM and SIGKILL. Airflow gives a task 5 s before it kills the task itself."""
POLL_SECONDS = 0.2
DRAIN_SECONDS = 1.0
"""After the child has ended, a grandchild may hold the pipe; its lines are waited for no longer than this."""
MAX_LINE_BYTES = 16_384
_PR_SET_PDEATHSIG = 1


class Child:
    """One process in a group of its own; on leaving the `with` block the whole group is gone.

    Ends with its caller in every way a caller can end: normally, by an exception, by a signal, and on Linux by SIGKILL too.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """Start `command` with exactly `environment` in `folder`; its stdout and stderr become `lines`."""
        self._kill_at: float | None = None
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent(),  # noqa: PLW1509 (two system calls through a library that is loaded already)
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def lines(self) -> Iterator[str]:
        """What the child writes, as it comes, until it ends. Undecodable bytes are replaced; endless lines are cut."""
        buffer = b""
        for chunk in self._chunks():
            *whole, buffer = (buffer + chunk).split(b"\n")
            yield from map(_text, whole)
            if len(buffer) > MAX_LINE_BYTES:
                yield _text(buffer)
                buffer = b""
        if buffer:
            yield _text(buffer)

    def wait(self) -> int:
        """The exit code; negative: the number of the signal that ended it."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(POLL_SECONDS)
            self._escalate()

    def request_stop(self) -> None:
        """Ask the group to end, and return at once: safe in a signal handler. `lines` and `wait` see to it that it does."""
        if self._process.returncode is None and self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_SECONDS
            self._signal(signal.SIGTERM)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.request_stop()
        try:
            self.wait()
        finally:
            self._signal(signal.SIGKILL)  # grandchildren that are left
            if self._process.stdout:
                self._process.stdout.close()

    def _chunks(self) -> Iterator[bytes]:
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        drain_until: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while drain_until is None or time.monotonic() < drain_until:
                if selector.select(POLL_SECONDS):
                    chunk = os.read(stream, 65_536)
                    if not chunk:
                        return
                    yield chunk
                elif drain_until is not None:
                    return
                if drain_until is None and self._process.poll() is not None:
                    drain_until = time.monotonic() + DRAIN_SECONDS
                self._escalate()

    def _escalate(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, of a group that has ended
            os.killpg(self._process.pid, number)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _end_with_parent() -> Callable[[], None] | None:
    """What the child runs before exec so that the kernel ends it when its caller dies; None where the kernel cannot."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def end_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return end_with_parent
