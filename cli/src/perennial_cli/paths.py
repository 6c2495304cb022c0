"""Where a command looks for pipelines when it is not told."""

from __future__ import annotations

from pathlib import Path

from perennial_cli.embedded.home import find_project
from perennial_spec.platform import Platform


def pipelines_dir(said: Path | None = None) -> Path:
    """The folder of all pipelines: as said, as PERENNIAL_PIPELINES_DIR says, or the project's."""
    if said is not None:
        return said
    told = Platform.from_environment().pipelines_dir
    return Path(told) if told else find_project() / "dags" / "pipelines"
