"""The log's two processes, killed in every order: what was acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from perennial_serving.prediction_log import Block, Label, PredictionLog
from perennial_serving.settings import Settings
from perennial_serving.tables import Tables
from perennial_spec import logs
from perennial_spec.platform import Platform


def block(first: int, rows: int) -> Block:
    ids = [f"id-{n}" for n in range(first, first + rows)]
    return Block(ids, None, "1", np.full(rows, 0.5), False, first, {"x": np.arange(rows, dtype=np.float64)})


@asynccontextmanager
async def opened(store: Path, write: Any = None, **settings: Any) -> AsyncIterator[PredictionLog]:
    write = write or Tables(Platform(store=str(store)), 0).append
    log = PredictionLog(write, Settings(**{"log_flush_seconds": 0.05, "shutdown_seconds": 5.0, **settings}))
    log.start()
    yield log
    await asyncio.to_thread(log.stop, 10.0)
    assert log.writer is None or ended(log.writer)


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def ids(store: Path, pipeline: str = "p") -> list[str]:
    found = DeltaTable(f"{store}/{pipeline}/{logs.PREDICTIONS}").to_pyarrow_table(columns=[logs.PREDICTION_ID])
    return sorted(found[logs.PREDICTION_ID].to_pylist())


def expected(rows: int) -> list[str]:
    return sorted(f"id-{n}" for n in range(rows))


def ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


async def test_rows_and_labels_of_several_pipelines_are_written_and_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        for n in range(0, 400, 4):
            log.predictions("p", block(n, 4))
            log.predictions("q", block(n, 4))
        assert log.labels("p", [Label("e", 1.0, 5)] * 3)
        assert log.waiting == 803
        await until(lambda: log.waiting == 0)
        assert (log.written["p"], log.written["q"], log.dropped["p"]) == (400, 400, 0)
    assert ids(tmp_path, "p") == ids(tmp_path, "q") == expected(400)
    assert DeltaTable(f"{tmp_path}/p/{logs.LABELS}").to_pyarrow_table().num_rows == 3


async def test_a_writer_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    killed, rows = 0, 0
    async with opened(tmp_path, log_flush_seconds=0.01) as log:
        for _ in range(6):
            before = rows
            while rows < before + 500:
                log.predictions("p", block(rows, 5))
                rows += 5
                await asyncio.sleep(0.001)
            while log.written["p"] <= before:
                await asyncio.sleep(0.01)
            if log.writer is not None:
                os.kill(log.writer, signal.SIGKILL)
                killed += 1
        await until(lambda: log.waiting == 0)
    assert killed >= 4
    assert ids(tmp_path) == expected(rows)
    assert (log.written["p"], log.dropped["p"]) == (rows, 0)


DYING = """
import os, pathlib, signal
from perennial_serving.tables import Tables

class Dying(Tables):
    '''The first append kills its process when the commit has happened and nobody has been told.'''
    def append(self, pipeline, table, log, segments):
        lost = super().append(pipeline, table, log, segments)
        marker = pathlib.Path(os.environ["MARKER"])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return lost
"""


async def test_a_commit_that_was_not_acknowledged_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dying_tables.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    import dying_tables  # type: ignore[import-not-found]

    store = tmp_path / "store"
    async with opened(store, dying_tables.Dying(Platform(store=str(store)), 0).append) as log:
        log.predictions("p", block(0, 10))
        await until((tmp_path / "marker").exists)
        log.predictions("p", block(10, 10))
        await until(lambda: log.waiting == 0)
        assert log.written["p"] == 20
    assert ids(store) == expected(20)


SERVER = """
import asyncio, os, sys, time
import numpy as np
from perennial_serving.prediction_log import Block, PredictionLog
from perennial_serving.settings import Settings
from perennial_serving.tables import Tables
from perennial_spec.platform import Platform

async def main(store, fork):
    log = PredictionLog(Tables(Platform(store=store), 0).append, Settings(log_flush_seconds=600.0))
    log.start()
    if fork and not os.fork():
        time.sleep(20)
        os._exit(0)
    for n in range(2000):
        log.predictions("p", Block([f"id-{n}"], None, "1", np.ones(1), False, 0, {"x": np.ones(1)}))
    while log._link.unsent or log._queues["p", "predictions"].entries:
        await asyncio.sleep(0.01)
    print(log.writer, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], sys.argv[2] == "fork"))
"""


@pytest.mark.parametrize("fork", ["alone", "fork"])
async def test_what_a_killed_server_had_sent_is_written_and_its_writer_ends(tmp_path: Path, fork: str) -> None:
    """Also when another process holds the server's end of the socket open."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path), fork], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    writer = int(server.stdout.readline())
    server.kill()
    server.wait()
    await until(lambda: ended(writer), 15)
    assert ids(tmp_path) == expected(2000)


async def test_signals_that_are_meant_for_the_server_do_not_end_its_writer(tmp_path: Path) -> None:
    async with opened(tmp_path, log_flush_seconds=0.2) as log:
        log.predictions("p", block(0, 1))
        await until(lambda: log.waiting == 0)
        writer = log.writer
        assert writer is not None
        assert os.getpgid(writer) != os.getpgid(0)
        assert os.sched_getscheduler(writer) == os.SCHED_IDLE
        assert os.getsid(writer) == os.getsid(0)  # another session would have a share of the processor of its own
        for each in (signal.SIGINT, signal.SIGTERM):
            log.predictions("p", block(int(each), 1))
            os.kill(writer, each)
            await until(lambda: log.waiting == 0)
        assert log.writer == writer


async def test_a_store_that_is_away_fills_the_queue_and_no_more_and_loses_nothing_of_it(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_text("not a folder")
    async with opened(store, log_queue_rows=1000, log_flush_rows=50) as log:
        for n in range(1500):
            log.predictions("p", block(n, 1))
            if n % 100 == 0:
                await asyncio.sleep(0.03)
        assert (log.waiting, log.dropped["p"]) == (1000, 500)
        assert not log.labels("p", [Label("e", 1.0, 5)])
        store.unlink()
        await until(lambda: log.waiting == 0)
        assert log.written["p"] == 1000
    assert ids(store) == expected(1000)


async def test_an_entry_that_cannot_be_sent_costs_no_answer_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as log:
        broken: Any = object()
        log.predictions("p", Block(["id-7"], ["secret"], broken, np.ones(1), False, 1, {}))
        assert (log.waiting, log.dropped["p"]) == (0, 1)
    assert "1 rows of p cannot be logged: ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_full_disk_costs_nothing_when_there_is_room_again(tmp_path: Path) -> None:
    """A limit on the size of files, set from outside, fails in the middle of a write as a full disk does."""
    async with opened(tmp_path) as log:
        log.predictions("p", block(0, 5))
        await until(lambda: log.waiting == 0)
        assert log.writer is not None
        limits = resource.prlimit(log.writer, resource.RLIMIT_FSIZE)
        for size in (0, 300, 1500):  # the file of rows does not fit, or the commit does not
            resource.prlimit(log.writer, resource.RLIMIT_FSIZE, (size, limits[1]))
            log.predictions("p", block(5 + size, 5))
            await asyncio.sleep(0.3)
            assert log.waiting == 5
            resource.prlimit(log.writer, resource.RLIMIT_FSIZE, limits)
            await until(lambda: log.waiting == 0)
        assert log.written["p"] == 20
    assert ids(tmp_path) == sorted(f"id-{at + n}" for at in (0, 5, 305, 1505) for n in range(5))


async def test_a_table_that_is_removed_meanwhile_is_made_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        log.predictions("p", block(100, 3))
        await until(lambda: log.waiting == 0)
        shutil.rmtree(tmp_path / "p")
        log.predictions("p", block(0, 3))
        await until(lambda: log.waiting == 0)
    assert ids(tmp_path) == expected(3)


async def test_the_end_waits_no_longer_than_it_may_and_says_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    store.write_text("not a folder")
    log = PredictionLog(Tables(Platform(store=str(store)), 0).append, Settings(shutdown_seconds=0.5))
    log.start()
    log.predictions("p", block(0, 7))
    start = time.monotonic()
    log.stop(1.5)
    assert 0.4 < time.monotonic() - start < 2.5
    assert "7 rows of the prediction and label logs were not written before the end" in caplog.text


async def test_the_end_writes_what_was_taken_in_the_same_turn_of_the_loop(tmp_path: Path) -> None:
    log = PredictionLog(Tables(Platform(store=str(tmp_path)), 0).append, Settings(log_flush_seconds=600.0))
    log.start()
    log.predictions("p", block(0, 7))
    log.stop(20)
    assert (log.waiting, log.written["p"]) == (0, 7)
    assert ids(tmp_path) == expected(7)


async def test_without_traffic_the_end_is_quick_and_the_writer_imports_nothing_of_the_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await asyncio.sleep(1)
        assert "deltalake" not in Path(f"/proc/{log.writer}/maps").read_text()
        start = time.monotonic()
    assert time.monotonic() - start < 2


async def test_a_writer_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", str(tmp_path / "nothing"))
        log = PredictionLog(Tables(Platform(store=str(tmp_path)), 0).append, Settings(log_flush_seconds=0.05))
        log.start()
        assert log.writer is None
        log.predictions("p", block(0, 4))
        await asyncio.sleep(0.05)
    await until(lambda: log.waiting == 0)
    log.stop(10)
    assert "the writer of the log cannot be started: No such file or directory" in caplog.text
    assert ids(tmp_path) == expected(4)
