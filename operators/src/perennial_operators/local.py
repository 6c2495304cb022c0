"""The local backend: a step is a child process of the Airflow worker."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException

from perennial_operators.contract import StepCall, StepTask, build_request, conclude
from perennial_operators.process import Child
from perennial_spec import names
from perennial_spec.errors import ContractError, PerennialError, PlatformError
from perennial_spec.step import StepName, StepRequest, StepResult, parse_result

COMMAND = (sys.executable, "-P", "-m", "perennial_steps")
"""-P: nothing is imported from the working directory."""
_WITHHELD = ("PERENNIAL_DATABASE_URL", "PERENNIAL_AIRFLOW_CREDENTIALS_FILE", "PERENNIAL_TOKEN_FILE")
"""What steps do not need, they do not get; nor any of Airflow's own settings, which hold its keys and its database."""
_LINE = re.compile(r"^\d\d:\d\d:\d\d (?:(WARNING|ERROR|CRITICAL) )?")
"""A step stamps its lines with time and level; Airflow does so too, once is enough."""


class LocalStepOperator(StepTask, BaseOperator):
    """Runs a step as a process of its own group: no step outlives its task."""

    ui_color = "#e8f0fe"

    def __init__(self, *, call: StepCall, command: tuple[str, ...] = COMMAND, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.call = call
        self.command = command
        self._child: Child | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        request = build_request(self, self.call, context)
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(
                prefix=f"perennial-{self.call.step}-", ignore_cleanup_errors=True
            ) as folder:
                result = self._run(request, Path(folder))
        except PerennialError as error:
            raise AirflowException(str(error)) from None
        process = time.monotonic() - start - result.seconds
        self.log.info("%s; %.2f s of work, %.2f s for its process", result.verdict.value, result.seconds, process)
        if result.metrics:
            self.log.info("metrics: %s", ", ".join(f"{k}={v:.6g}" for k, v in result.metrics.items()))
        return conclude(result, self.call, context)

    def on_kill(self) -> None:
        if self._child:
            self._child.request_stop()

    def _run(self, request: StepRequest, folder: Path) -> StepResult:
        request_file, result_file = folder / "request.json", folder / "result.json"
        request_file.write_text(request.model_dump_json(exclude_none=True))
        environment = child_environment(os.environ, self.call, request.step) | {
            names.ENV_REQUEST_FILE: str(request_file),
            names.ENV_RESULT_FILE: str(result_file),
            "TMPDIR": str(folder),
        }
        with Child(self.command, environment, folder) as self._child:
            for line in self._child.lines():
                self.log.log(*_level_and_text(line))
            code = self._child.wait()
        return read_result(result_file, code, request)


def child_environment(environment: Mapping[str, str], call: StepCall, step: StepName) -> dict[str, str]:
    """What the process of `step` is told: the platform's places, nobody else's secrets, and how many threads it may use."""
    kept = {k: v for k, v in environment.items() if not k.startswith("AIRFLOW__") and k not in _WITHHELD}
    threads = max(1, math.ceil(call.pipeline.spec.step_resources(step).cpu))
    own = {
        "PERENNIAL_PIPELINES_DIR": str(call.pipeline.folder.parent.resolve()),
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }
    return kept | own


def read_result(file: Path, code: int, request: StepRequest) -> StepResult:
    """The result that the process left.

    Raises:
        PlatformError: the process was ended from outside before it had one.
        ContractError: it ended by itself without one, or left the result of something else.
    """
    text = file.read_text() if file.exists() else ""
    if not text:
        raise _no_result(code, request)
    result = parse_result(text)
    if (result.step, result.run_key) != (request.step, request.run_key):
        raise ContractError(
            f"the process left the result of step {result.step}, run {result.run_key}",
            expected=f"step {request.step}, run {request.run_key}",
        )
    return result


def _no_result(code: int, request: StepRequest) -> PerennialError:
    if code == -signal.SIGKILL:
        return PlatformError(
            f"step {request.step} was killed (SIGKILL), most often because memory ran out",
            next="see the kernel's log (dmesg); train on less with data.window, or use a larger machine",
        )
    if code < 0:
        return PlatformError(f"step {request.step} was ended by signal {-code} ({signal.strsignal(-code)})")
    return ContractError(
        f"step {request.step} ended with exit code {code} and left no result",
        expected=f"a StepResult in the file that {names.ENV_RESULT_FILE} names",
        next="the lines above say how far it came",
    )


def _level_and_text(line: str) -> tuple[int, str]:
    match = _LINE.match(line)
    level = logging.getLevelNamesMapping()[match[1]] if match and match[1] else logging.INFO
    return level, line[match.end() :] if match else line
