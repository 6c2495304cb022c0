"""`python -m perennial_steps`: one step as a process; the entry point of the steps image and of the local backend.

Request and result travel as `perennial_spec.step` says; the log goes to stderr; the exit code is the verdict's.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

from perennial_spec.errors import PerennialError
from perennial_spec.platform import Platform
from perennial_spec.step import StepRequest, StepResult, Verdict, read_request, write_result
from perennial_steps.progress import log_to_stderr
from perennial_steps.runner import Terminated, run_step, terminated

log = logging.getLogger("perennial_steps")

GRACE_SECONDS = 5.0
"""Between SIGTERM and the hard end; below the 30 s that Kubernetes gives a pod."""


def main() -> int:
    """Run the step that the environment asks for; the exit code is the verdict's."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    log_to_stderr()
    try:
        request = read_request()
    except (PerennialError, OSError, UnicodeDecodeError) as error:
        log.error("%s", error)  # noqa: TRY400 (for the user: what, where, what to do; a traceback says nothing more)
        return Verdict.ERROR.exit_code
    termination = _Termination(request)
    termination.watch()
    try:
        result = run_step(request, Platform.from_environment())
        termination.end()
    except Terminated:
        log.warning("%s %s: terminated", request.pipeline, request.step)
        result = terminated(request, termination.seconds)
        termination.end()
    return _write(result)


@dataclass
class _Termination:
    """SIGTERM raises `Terminated` in the main thread; where C code never returns to Python, a second thread ends the process."""

    request: StepRequest
    start: float = field(default_factory=time.perf_counter)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def watch(self) -> None:
        # Blocking reads of a pipe cost nothing; Python writes the number of each signal to it at once, in whatever thread.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._raise)
        threading.Thread(target=self._end_hard, args=(reader,), name="sigterm", daemon=True).start()

    def end(self) -> None:
        """From here on the result is written, whatever signal comes."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.done.set()

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    def _end_hard(self, reader: int) -> None:
        while signal.SIGTERM not in os.read(reader, 64):
            pass
        if not self.done.wait(GRACE_SECONDS):
            log.error("still in native code %.0f s after SIGTERM: ending hard", GRACE_SECONDS)
            os._exit(_write(terminated(self.request, self.seconds)))


def _write(result: StepResult) -> int:
    try:
        write_result(result)
    except OSError as error:
        log.error("the result cannot be written: %s", error)  # noqa: TRY400
        return Verdict.ERROR.exit_code
    return result.verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
