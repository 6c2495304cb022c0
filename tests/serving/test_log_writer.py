"""The writer of the log by itself: how much it takes in, what it imports, and how much memory that is."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial_serving.log_frames import Hello, Segment
from perennial_serving.log_writer import Writer
from perennial_serving.prediction_log import Block, PredictionLog
from perennial_serving.settings import Settings
from perennial_serving.tables import Tables
from perennial_spec import logs
from perennial_spec.platform import Platform


def block(rows: int) -> Block:
    ids = [f"id-{n}" for n in range(rows)]
    return Block(ids, None, "1", np.full(rows, 0.5), False, 1, {"x": np.arange(rows, dtype=np.float64)})


def test_the_writer_leaves_in_the_socket_what_it_has_no_room_for() -> None:
    def away(*_: Any) -> int:
        raise OSError("the store is away")

    ours, theirs = socket.socketpair()
    hello = Hello("log", os.getppid(), away, 600.0, 100, 0.2)
    writer = Writer(theirs, hello, bytearray())
    ours.setblocking(False)
    entry, sent = block(10).encoded(), 0
    with pytest.raises(BlockingIOError):
        while True:
            ours.sendall(b"".join(Segment(sent + 1, "p", logs.PREDICTIONS, 10, [entry] * 100).pieces()))
            sent += 1
            if writer._may_read():
                writer._read(0)
    assert 200 <= writer._rows < sent * 10
    assert writer._bytes < 2 * 2**20
    ours.close()
    theirs.close()


def test_the_server_imports_nothing_of_the_store_and_the_writer_nothing_of_the_model() -> None:
    code = "import sys, {0}; print(sorted({1} & set(sys.modules)))"
    store = {"deltalake", "arro3", "arro3.core", "pyarrow"}
    model = {"numpy", "pyarrow", "pandas", "xgboost", "perennial_features"}
    for module, forbidden in (("prediction_log", store), ("log_writer, deltalake, perennial_serving.tables", model)):
        found = subprocess.run(
            [sys.executable, "-c", code.format(f"perennial_serving.{module}", forbidden)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == "[]", module


async def test_the_writer_is_small(tmp_path: Path) -> None:
    """Memory that is its own; pages of libraries are shared between the writers of a machine, and go when others need them."""
    log = PredictionLog(Tables(Platform(store=str(tmp_path)), 0).append, Settings(log_flush_seconds=0.05))
    log.start()
    for _ in range(200):
        log.predictions("p", block(100))
        await asyncio.sleep(0.005)
    while log.waiting:
        await asyncio.sleep(0.01)
    own = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{log.writer}/status").read_text())
    log.stop(10)
    assert own is not None
    assert int(own[1]) < 70 * 1024
