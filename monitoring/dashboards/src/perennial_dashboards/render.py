"""Writes the dashboards' JSON. `make render` calls it."""

from __future__ import annotations

from pathlib import Path

from perennial_dashboards import loop, overview, pipeline, platform
from perennial_dashboards.grafana import rendered

TARGET = Path(__file__).parents[2]
BOARDS = (overview.BOARD, pipeline.BOARD, loop.BOARD, platform.BOARD)


def render(folder: Path = TARGET) -> None:
    """Write one file per dashboard."""
    for board in BOARDS:
        (folder / board.file).write_text(rendered(board))


if __name__ == "__main__":
    render()
