"""What a model was made from: the version of the code, and of everything that is installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

ENV_LOCK_FILE = "PERENNIAL_LOCK_FILE"
ENV_CODE_VERSION = "PERENNIAL_CODE_VERSION"
"""Set in images, where there is no repository."""


def lock_digest() -> str:
    """SHA-256 of the lock file that PERENNIAL_LOCK_FILE names, or else of the names and versions of all that is installed."""
    file = os.environ.get(ENV_LOCK_FILE)
    if file and Path(file).is_file():
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    # The folders' names tell name and version; reading 200 metadata files would take a second on a cold disk.
    installed = sorted(
        {Path(str(found._path)).name if hasattr(found, "_path") else found.name for found in distributions()}
    )
    return hashlib.sha256("\n".join(installed).encode()).hexdigest()


def code_version(folder: Path) -> str:
    """The commit that `folder` is at, `-dirty` when it has changes that are not committed; else the version of this package."""
    if stated := os.environ.get(ENV_CODE_VERSION):
        return stated
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return f"{commit}-dirty" if _git(folder, "status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return f"perennial-steps {version('perennial-steps')}"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
