"""Locks that the kernel lets go of when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(file: Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold the lock, or yield False when another process holds it for longer than `wait` seconds."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _take(descriptor, fcntl.LOCK_EX, wait)
    finally:
        os.close(descriptor)


def is_held(file: Path) -> bool:
    """Whether another process holds the lock."""
    if not file.exists():
        return False
    descriptor = os.open(file, os.O_RDWR)
    try:
        return not _take(descriptor, fcntl.LOCK_SH, 0.0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int, wait: float) -> bool:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
