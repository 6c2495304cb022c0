"""What processes take of the machine, read from /proc: the metrics that every Prometheus client exports of itself, summed over several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from perennial_serving.exposition import family

_PROC = Path("/proc")
_TRIES = 3
# Fields of /proc/<pid>/stat behind the name, which may hold anything.
_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM, _START, _VIRTUAL, _RESIDENT = 11, 12, 13, 14, 19, 20, 21


@dataclass(frozen=True)
class Taken:
    """Of one process, or of several."""

    cpu: float = 0.0
    """Seconds."""
    ended: float = 0.0
    """Seconds of its children that have ended."""
    virtual: int = 0
    """Bytes; so the next."""
    resident: int = 0
    files: int = 0
    start: float = 0.0
    """Since 1970."""


def text(pid: int, workers: Sequence[int] = ()) -> str:
    """The metrics of `pid`; with those of its `workers` if it has some."""
    if not _PROC.joinpath("self", "stat").exists():  # there are systems without
        return ""
    own, rest = _all(pid, workers)
    everyone = [own, *rest]
    cpu = sum(each.cpu + (each.ended if workers else 0.0) for each in everyone)
    found = (
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size.", sum(each.virtual for each in everyone)),
        ("process_resident_memory_bytes", "gauge", "Resident memory size.", sum(each.resident for each in everyone)),
        ("process_start_time_seconds", "gauge", "Start of the process since 1970.", own.start),
        ("process_cpu_seconds_total", "counter", "Processor time, user and system.", round(cpu, 2)),
        ("process_open_fds", "gauge", "Open file descriptors.", sum(each.files for each in everyone)),
        ("process_max_fds", "gauge", "File descriptors that one process may open.", _most_files()),
    )
    return "".join(family(name, kind, meaning, [f"{name} {value!r}\n"]) for name, kind, meaning, value in found)


def _all(pid: int, workers: Iterable[int]) -> tuple[Taken, list[Taken]]:
    """What the process and its workers took. The time of a worker that ends meanwhile passes to `pid`: look again, or the sum would lack
    it or have it twice."""
    own, rest = _taken(pid), [_taken(each) for each in workers]
    for _ in range(_TRIES):
        again = _taken(pid)
        if not rest or again.ended == own.ended:
            break
        own, rest = again, [_taken(each) for each in workers]
    return own, rest


def _taken(pid: int) -> Taken:
    """All 0 when there is no such process."""
    with suppress(OSError):
        folder = _PROC / str(pid)
        fields = folder.joinpath("stat").read_bytes().rpartition(b")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        files = 0
        with suppress(OSError):  # of a process that has just ended
            files = len(os.listdir(folder / "fd"))  # noqa: PTH208 (a thousand paths for their number)
        return Taken(
            cpu=(int(fields[_USER]) + int(fields[_SYSTEM])) / ticks,
            ended=(int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])) / ticks,
            virtual=int(fields[_VIRTUAL]),
            resident=int(fields[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE"),
            files=files,
            start=int(fields[_START]) / ticks + _boot_time(),
        )
    return Taken()


def _boot_time() -> float:
    for line in _PROC.joinpath("stat").read_bytes().splitlines():
        if line.startswith(b"btime "):
            return float(line.split()[1])
    return 0.0


def _most_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
