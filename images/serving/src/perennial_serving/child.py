"""The server's side of a child process: what may take long, need much memory, or crash, and must not do so here.

A child answers one call at a time over a pair of sockets; see `frames` for what goes over it, and `child_loop` for the other end. It
inherits the variables that libraries need, and none of the server's secrets or sockets.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from signal import Signals

from perennial_features.code import Array
from perennial_serving.frames import PREFIX, Columns, Head, decode, encode, lengths
from perennial_serving.refusals import Refusal
from perennial_spec.errors import ContractError

_INHERITED = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
_INHERITED_FAMILIES = ("LC_", "PYTHON", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "CUDA_", "NVIDIA_")
_BUFFER_BYTES = 2**20
_END_SECONDS = 2.0
"""How long a child may take to end by itself once the line is closed."""


class ChildEnded(Exception):
    """The process ended during a call; says how."""


class ChildOverran(Exception):
    """A call took too long, and the process was killed."""


class ChildFailed(Exception):
    """The process answered that the call failed."""

    def __init__(self, failure: Mapping[str, object]) -> None:
        super().__init__("the call failed")
        self.kind, self.what, self.where, self.expected, self.next = (
            str(failure.get(word, "")) for word in ("kind", "what", "where", "expected", "next")
        )


class TooSlow(Refusal):
    """A child took longer than it may."""

    status = 504


@dataclass(frozen=True)
class Launch:
    """How to start a child."""

    module: str
    """What runs in it; calls `child_loop.serve`."""
    memory_bytes: int = 0
    """Address space that it may use; 0 for any."""
    inherit: Collection[str] = ()
    """Names of further environment variables that it gets."""

    def environment(self) -> dict[str, str]:
        """The child's environment. One thread of OpenMP unless the operator says otherwise: models must not take the server's cores."""
        wanted = {
            name: value
            for name, value in os.environ.items()
            if name in _INHERITED or name in self.inherit or name.startswith(_INHERITED_FAMILIES)
        }
        return {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MLFLOW_DISABLE_TELEMETRY": "true", **wanted}


class Child:
    """A running child. Calls one after the other: who shares it must wait for their turn."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once the other end of the line is closed."""
        return not self._reader.at_eof()

    @classmethod
    async def start(cls, launch: Launch) -> Child:
        """Start a process; it may take seconds until it answers."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.to_thread(_spawn, launch, theirs)
                reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_BUFFER_BYTES)
            except BaseException:
                ours.close()
                raise
        return cls(process, reader, writer)

    async def call(self, head: Head, columns: Columns, seconds: float) -> tuple[Head, dict[str, Array]]:
        """The answer to a call.

        Args:
            seconds: time after which the process is killed. It is killed as well when the caller is cancelled: the line is out of
                step then.

        Raises:
            ChildFailed: the call failed; the process can take another.
            ChildOverran: it took too long; the process is gone.
            ChildEnded: the process is gone.
        """
        frame = encode(head, columns)
        try:
            async with asyncio.timeout(seconds):
                answer, found = await self._exchange(frame)
        except TimeoutError:
            await self.kill()
            raise ChildOverran(f"no answer within {seconds:g} s") from None
        except (OSError, EOFError, ContractError) as error:
            raise ChildEnded(await self._end(error)) from None
        except asyncio.CancelledError:
            self._process.kill()
            raise
        if "failure" in answer:
            raise ChildFailed(answer["failure"])
        return answer, found

    async def _exchange(self, frame: bytes) -> tuple[Head, dict[str, Array]]:
        self._writer.write(frame)
        await self._writer.drain()
        head, columns = lengths(await self._reader.readexactly(PREFIX.size))
        return decode(await self._reader.readexactly(head), await self._reader.readexactly(columns))

    async def _end(self, error: Exception) -> str:
        """Make sure that the process is gone, and say how it went."""
        if isinstance(error, ContractError):
            await self.kill()
            return f"it answered what is no answer ({error.what})"
        status = await self.close()
        return f"signal {Signals(-status).name}" if status < 0 else f"exit status {status}"

    async def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        await self.close()

    async def close(self) -> int:
        """Close the line, on which the process ends by itself, and see to it that it does. Its exit status; negative for a signal."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        return await asyncio.to_thread(_reap, self._process)


def _spawn(launch: Launch, theirs: socket.socket) -> subprocess.Popen[bytes]:
    # -P: what lies in the server's working directory must not take the place of a library.
    command = [sys.executable, "-P", "-m", launch.module, str(theirs.fileno()), str(launch.memory_bytes)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=launch.environment(), close_fds=True
    )


def _reap(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
