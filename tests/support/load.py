"""Clients that ask model servers all the time, while something else is done to these."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True)
class Answer:
    at: float
    """Unix seconds."""
    status: int
    version: str
    server: str


@dataclass
class Load:
    """Each connection asks one server for predictions of the same rows, again and again."""

    urls: list[str]
    path: str
    rows: list[dict[str, Any]]
    connections: int = 2
    pause: float = 0.0
    """Seconds between an answer and the next question."""
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Requests without an answer."""

    @contextmanager
    def on(self) -> Iterator[None]:
        ended = threading.Event()

        def ask(url: str) -> None:
            with httpx.Client(base_url=url, timeout=30) as client:
                while not ended.is_set():
                    try:
                        answer = client.post(self.path, json={"dataframe_records": self.rows})
                    except httpx.HTTPError as error:
                        self.failures.append(f"{url}: {error!r}")
                        continue
                    by = answer.headers.get("X-Perennial-Version", "")
                    self.answers.append(Answer(time.time(), answer.status_code, by, url))
                    time.sleep(self.pause)

        asking = [threading.Thread(target=ask, args=(self.urls[n % len(self.urls)],)) for n in range(self.connections)]
        for thread in asking:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in asking:
                thread.join()

    def all_answer(self, version: str, since: float) -> bool:
        """Every server has answered with the version, and nobody with another for a second."""
        now = time.time()
        last = [answer for answer in tuple(self.answers) if answer.at > max(since, now - 1)]
        return (
            now > since + 1
            and {answer.server for answer in last} == set(self.urls)
            and {answer.version for answer in last} == {version}
        )

    def last_of(self, version: str) -> float:
        """When a version answered last, in Unix seconds."""
        return max(answer.at for answer in self.answers if answer.version == version)

    @property
    def statuses(self) -> set[int]:
        return {answer.status for answer in self.answers}
