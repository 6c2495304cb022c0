"""Log files of the parts: bounded, and read from their end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

LARGEST = 10_000_000
"""Bytes of a log file; twice that is kept, as NAME.log and NAME.log.1."""
BLOCK = 65536


def bound(folder: Path, largest: int = LARGEST) -> None:
    """Move logs that have grown too large aside. The parts keep writing to the same file, in append mode."""
    for file in folder.glob("*.log"):
        if file.stat().st_size <= largest:
            continue
        with file.open("r+b") as stream:
            stream.seek(-largest, 2)
            file.with_suffix(".log.1").write_bytes(stream.read())
            stream.truncate(0)


def prune(folder: Path, days: float) -> None:
    """Remove files below `folder` that were last written so many days ago."""
    oldest = time.time() - days * 86400
    for file in list(folder.rglob("*")):
        if file.is_file() and not file.is_symlink() and file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a file; fewer when it is shorter, none when it does not exist."""
    try:
        with file.open("rb") as stream:
            position = stream.seek(0, 2)
            blocks: list[bytes] = []
            while position > 0 and sum(block.count(b"\n") for block in blocks) <= lines:
                size = min(BLOCK, position)
                position -= size
                stream.seek(position)
                blocks.insert(0, stream.read(size))
    except FileNotFoundError:
        return []
    text = b"".join(blocks).decode(errors="replace")
    return text.splitlines()[-lines:] if lines > 0 else []


def follow(file: Path, pause: float = 0.2) -> Iterator[str]:
    """Lines as they are written from now on, for ever; goes on when the file is cut."""
    position = file.stat().st_size if file.exists() else 0
    rest = ""
    while True:
        size = file.stat().st_size if file.exists() else 0
        if size < position:
            position = 0
        if size > position:
            with file.open("rb") as stream:
                stream.seek(position)
                text = rest + stream.read(BLOCK).decode(errors="replace")
                position = stream.tell()
            *whole, rest = text.split("\n")
            yield from whole
        else:
            time.sleep(pause)
