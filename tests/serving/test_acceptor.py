"""Two that listen on one socket take turns, and neither waits for one that is gone or stuck."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from perennial_serving.acceptor import Acceptor, Board


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def clients(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(count)]


async def test_who_has_more_leaves_the_next_to_the_other(listener: socket.socket, tmp_path: Path) -> None:
    board = Board(tmp_path)
    taken: list[list[socket.socket]] = [[], []]
    acceptors = [
        Acceptor(listener, mine.append, lambda mine=mine: len(mine), Board(tmp_path), slot)  # type: ignore[misc]
        for slot, mine in enumerate(taken[:1])
    ]
    board.put(1, 0)  # another process, which has none
    first = clients(listener, 3)
    await asyncio.sleep(0.1)
    assert len(taken[0]) == 3  # it is stuck, so they are not left to wait
    assert board.fewest == 0
    board.clear(1)
    assert board.fewest == 3
    more = clients(listener, 20)
    await asyncio.sleep(0.05)
    assert len(taken[0]) == 23
    acceptors[0].stop()
    assert board.fewest == 0
    late = clients(listener, 1)
    await asyncio.sleep(0.05)
    assert len(taken[0]) == 23
    for each in (*first, *more, *late, *taken[0]):
        each.close()


async def test_a_process_that_can_open_nothing_more_tries_again(listener: socket.socket, tmp_path: Path) -> None:
    taken: list[socket.socket] = []
    acceptor = Acceptor(listener, taken.append, lambda: len(taken), Board(tmp_path), 0)
    client = clients(listener, 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        await asyncio.sleep(0.2)
        assert taken == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for _ in range(100):
        await asyncio.sleep(0.02)
        if taken:
            break
    assert len(taken) == 1
    acceptor.stop()
    with suppress(OSError):
        client[0].close()
    taken[0].close()
