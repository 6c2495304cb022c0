"""Prediction ids: UUIDs of version 7 (RFC 9562), which sort by time, so that a Delta file's statistics on them are narrow."""

from __future__ import annotations

import os
import time

_VARIANT = "89ab"


def prediction_ids(count: int) -> list[str]:
    """`count` new ids. One call to the system's random numbers for all of them."""
    moment = f"{time.time_ns() // 1_000_000:012x}"
    head = f"{moment[:8]}-{moment[8:12]}-7"
    noise = os.urandom(10 * count).hex()
    return [_id(head, noise[at : at + 20]) for at in range(0, 20 * count, 20)]


def _id(head: str, noise: str) -> str:
    return f"{head}{noise[:3]}-{_VARIANT[int(noise[3], 16) & 3]}{noise[4:7]}-{noise[7:19]}"
