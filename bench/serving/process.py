"""A server as a tree of processes on one core: started, waited for, weighed, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS = 300
END_SECONDS = 15
_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A server did not start, ended, or did not answer a request; with the end of what it said."""


class WrongAnswer(Exception):
    """A server does not answer what XGBoost does: nothing that was measured counts."""


@dataclass(frozen=True)
class Weight:
    """Memory of all processes of a server, MB."""

    rss: float
    pss: float
    """Shared pages counted once: what the server really costs."""
    processes: int


class Process:
    """Runs `command` pinned to `core`, or to several as in `0,1`, in a session of its own; what it says goes to `log`."""

    def __init__(self, command: Sequence[str], log: Path, core: int | str, environment: Mapping[str, str]) -> None:
        self._log = log
        known = {name: value for name, value in os.environ.items() if not name.startswith(("PERENNIAL_", "MLFLOW_"))}
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                env={**known, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=log.parent,
            )

    def until(self, answers: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Wait until `answers`.

        Raises:
            Failed: it ended, or did not answer within `seconds`.
        """
        limit = time.monotonic() + seconds
        while not answers():
            if self._process.poll() is not None:
                raise Failed(f"{what} ended with {self._process.returncode}:\n{self.said()}")
            if time.monotonic() > limit:
                raise Failed(f"{what} did not answer within {seconds:g} s:\n{self.said()}")
            time.sleep(0.1)

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1500:]

    def weight(self) -> Weight:
        """Memory of its whole tree now."""
        found = [values for pid in self._pids() if (values := _smaps(pid))]
        return Weight(sum(rss for rss, _ in found), sum(pss for _, pss in found), len(found))

    def cpu_seconds(self) -> float:
        """CPU time that its whole tree has used."""
        return sum(_seconds(pid, 2) for pid in self._pids())

    def user_seconds(self) -> float:
        """Of that, outside of the kernel."""
        return sum(_seconds(pid, 1) for pid in self._pids())

    def stop(self) -> None:
        """End it in order, and by force what does not."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _pids(self) -> list[int]:
        import psutil

        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root.pid, *(child.pid for child in root.children(recursive=True))]
        return []


def user_seconds() -> float:
    """CPU time of the whole machine, outside of the kernel."""
    fields = Path("/proc/stat").read_text().split(maxsplit=3)
    return (int(fields[1]) + int(fields[2])) / _TICKS


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _smaps(pid: int) -> tuple[float, float] | None:
    """RSS and PSS in MB; None when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ValueError):
        return None
    values = {parts[0]: int(parts[1]) / 1000 for line in lines if (parts := line.split())[-1] == "kB"}
    return values["Rss:"] * 1.024, values["Pss:"] * 1.024


def _seconds(pid: int, kinds: int) -> float:
    """CPU time of a process: in its own code, and (kinds=2) in the kernel too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11 : 11 + kinds]) / _TICKS
