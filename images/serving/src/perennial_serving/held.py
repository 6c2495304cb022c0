"""Folders that exist for as long as some process holds them: the system lets go for a process that is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

LOCK = "lock"


def hold(place: Path) -> int:
    """Make the folder, if need be, and hold it. The descriptor of its lock."""
    while True:
        with suppress(FileExistsError):
            place.mkdir()
        try:
            held = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # removed since
            continue
        fcntl.flock(held, fcntl.LOCK_SH)
        if _is_lock_of(place, held):
            return held
        os.close(held)


def let_go(place: Path, held: int) -> None:
    """Give up the lock, and remove the folder if no other worker holds it. Whoever wants it meanwhile makes it anew."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_lock_of(place, held):
            return
        gone = place.with_name(f".gone-{os.getpid()}-{held}")
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError:  # someone has it; or the folder of all is gone, at the very end
        pass
    finally:
        os.close(held)


def _is_lock_of(place: Path, held: int) -> bool:
    """False: the folder was removed while we waited for its lock, and what is there now, if anything, is another."""
    try:
        return os.path.samestat(os.fstat(held), place.joinpath(LOCK).stat())
    except FileNotFoundError:
        return False


def sweep(places: list[Path]) -> None:
    """Remove those that nobody holds; who may not, or finds no lock there, leaves them."""
    for place in places:
        with suppress(OSError):
            let_go(place, os.open(place / LOCK, os.O_RDWR))
