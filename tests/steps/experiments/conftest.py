from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from server_logs import Log


@pytest.fixture
def log(room: Any) -> Log:
    return Log(room.platform, "demo")


@pytest.fixture
def noon() -> datetime:
    return datetime(2026, 3, 1, 12, tzinfo=UTC)
