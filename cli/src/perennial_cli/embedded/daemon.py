"""The supervisor's process: `python -m perennial_cli.embedded.daemon STATE_FOLDER`.

SIGTERM and SIGINT end all parts and then the supervisor; SIGHUP starts parts that wait for their next restart at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from perennial_cli.embedded import logs
from perennial_cli.embedded import process as processes
from perennial_cli.embedded.engine import Engine
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.lock import held
from perennial_cli.embedded.state import PlatformState, read_plan, write_state
from perennial_spec.errors import PerennialError

REPORT_PERIOD = 0.1
"""Seconds between looks at the parts' states; the file is written when one has changed."""
OBSERVE_PERIOD = 4.0
"""Seconds between looks at all descendants."""
TIDY_PERIOD = 60.0
KEEP_LOG_DAYS = 14


async def supervise(home: Home) -> None:
    """Run the plan of a state folder until told to stop."""
    plan = read_plan(home)
    engine = Engine(plan, home)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, engine.retry_now)
    me = processes.seen(psutil.Process())
    report = asyncio.create_task(_report(home, engine, PlatformState(me, plan.instance, time.time()), stop))
    tidy = asyncio.create_task(_tidy(home))
    try:
        await engine.run(stop)
        left = await asyncio.to_thread(processes.descendants, os.getpid())
        await asyncio.to_thread(processes.terminate, left, 3.0)
    finally:
        for task in (report, tidy):
            task.cancel()
        await asyncio.gather(report, tidy, return_exceptions=True)
        # Only now: as long as something may be left, its last traces must stay readable.
        home.state.unlink(missing_ok=True)


async def _report(home: Home, engine: Engine, state: PlatformState, stop: asyncio.Event) -> None:
    next_look = 0.0
    reaper = processes.Reaper()
    written: PlatformState | None = None
    seen: tuple[processes.Seen, ...] = ()
    while True:
        if time.monotonic() >= next_look or (written and engine.states() != written.parts):
            reaper.look(time.monotonic(), engine.pids())
            seen = engine.observe()
            next_look = time.monotonic() + OBSERVE_PERIOD
        fresh = PlatformState(
            state.supervisor, state.instance, state.started, stop.is_set(), engine.states(), processes=seen
        )
        if fresh != written:
            _write(home, fresh)
            written = fresh
        await asyncio.sleep(REPORT_PERIOD)


def _write(home: Home, state: PlatformState) -> None:
    # A full disk must not end the supervisor: what it looks after may still be fine.
    with contextlib.suppress(OSError):
        write_state(home, state)


async def _tidy(home: Home) -> None:
    while True:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(logs.bound, home.logs)
            await asyncio.to_thread(logs.prune, home.path / "airflow" / "logs", KEEP_LOG_DAYS)
        await asyncio.sleep(TIDY_PERIOD)


def main(arguments: list[str]) -> int:
    """Detach from whoever called, take the lock and run."""
    home = Home(Path(arguments[0]))
    if os.fork():
        # The caller gets its child back at once; the supervisor belongs to init.
        return 0
    with held(home.lock, wait=5.0) as mine:
        if not mine:
            sys.stderr.write(f"another supervisor holds {home.lock}\n")
            return 1
        logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
        processes.adopt_orphans()
        try:
            asyncio.run(supervise(home))
        except PerennialError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
