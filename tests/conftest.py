"""What holds for all tests."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: with two workers, one would be left with the loop at the end."""
    items.sort(key=lambda item: item.get_closest_marker("loop") is None)
