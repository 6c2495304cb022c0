"""The flood: alerts as a pair of Alertmanagers sends them in a bad minute, most of them copies."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

SEED = 20130715


@dataclass(frozen=True)
class Flood:
    """So many alerts within so many seconds."""

    alerts: int = 10_000
    distinct: int = 500
    """The others are copies of these."""
    pipelines: int = 20
    seconds: float = 60.0
    connections: int = 4
    grouped: int = 1
    """Alerts of one body."""

    def bodies(self) -> list[bytes]:
        """In the order in which they are sent. Every alert comes once before any of its copies may."""
        numbers = [*range(self.distinct), *(n % self.distinct for n in range(self.alerts - self.distinct))]
        random.Random(SEED).shuffle(numbers)
        groups = [numbers[start : start + self.grouped] for start in range(0, len(numbers), self.grouped)]
        return [json.dumps(notification([self._alert(number) for number in group])).encode() for group in groups]

    def _alert(self, number: int) -> dict[str, object]:
        pipeline = f"p{number % self.pipelines:02d}"
        return {
            "status": "firing",
            "labels": {
                "alertname": "PerennialFeatureDrift",
                "pipeline": pipeline,
                "version": "1",
                "feature": f"f{number}",
                "action": "retrain",
                "severity": "warning",
            },
            "annotations": {"summary": f"{pipeline}: f{number} has drifted, PSI 0.31 > 0.20", "description": "x" * 300},
            "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph",
            "fingerprint": f"{number:016x}",
        }


def notification(alerts: Sequence[dict[str, object]]) -> dict[str, object]:
    """A body of Alertmanager's webhook, version 4."""
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "status": "firing",
        "receiver": "controller",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts),
    }


@dataclass
class Sent:
    """What came of it."""

    seconds: list[float] = field(default_factory=list)
    """Of each answer, from when it should have been sent: a server that is slow cannot hide it by being asked less."""
    refused: int = 0
    """Answers that were no success, and requests without one."""


def send(flood: Flood, url: str, token: str) -> Sent:
    """Send all of it at an even pace, and wait for every answer."""
    bodies, sent, lock = flood.bodies(), Sent(), threading.Lock()
    began, pace = time.monotonic() + 0.2, flood.seconds / len(bodies)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def connection(first: int) -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
            for place in range(first, len(bodies), flood.connections):
                due = began + place * pace
                time.sleep(max(due - time.monotonic(), 0))
                try:
                    good = client.post("/api/v1/alerts", content=bodies[place]).is_success
                except httpx.HTTPError:
                    good = False
                with lock:
                    sent.seconds.append(time.monotonic() - due)
                    sent.refused += not good

    threads = [threading.Thread(target=connection, args=(first,)) for first in range(flood.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent
