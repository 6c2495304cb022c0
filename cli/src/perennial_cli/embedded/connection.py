"""How other commands find the embedded platform: `load` reads what `up` wrote."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from perennial_cli.embedded.home import Home, find_home, write_private
from perennial_cli.embedded.lock import is_held
from perennial_spec.errors import PlatformError
from perennial_spec.platform import Platform


def save(home: Home, platform: Platform) -> None:
    """Write down where everything is. The file holds the ledger's password, so only this user can read it."""
    write_private(home.platform, json.dumps(asdict(platform), indent=1) + "\n")


def load(home: Path | None = None) -> Platform:
    """Endpoints of the running platform.

    Args:
        home: state folder; PERENNIAL_HOME, or `.perennial` in the project, when None.

    Raises:
        PlatformError: it is not running, or its state folder is of another version.
    """
    found = find_home(home)
    if not is_held(found.lock):
        raise PlatformError(
            "the platform is not running",
            where=str(found.path),
            expected="a running platform",
            next="start it with: perennial up",
        )
    try:
        return Platform(**json.loads(found.platform.read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise PlatformError(
            "the platform's endpoints cannot be read",
            where=str(found.platform),
            expected="what this version of `perennial up` writes",
            next="restart it with: perennial down, then perennial up",
        ) from error


def environment(home: Path | None = None) -> dict[str, str]:
    """The variables that tell a child process where the platform is. Raises as `load`."""
    return load(home).to_environment()
