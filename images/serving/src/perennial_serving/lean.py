"""The libraries that the server is built on, without what only their command lines and reloaders use, where that is installed too.

`import httpx` and `import uvicorn` try for it, and do without where it is missing; it would cost every worker 4 MB.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_UNUSED = ("rich", "pygments", "a2wsgi", "watchfiles")


def import_libraries() -> None:
    """Call this first in a process that answers. Feature code may still import what was left out."""
    with missing(*_UNUSED):
        import httpx  # noqa: F401
        import uvicorn  # noqa: F401


@contextmanager
def missing(*modules: str) -> Iterator[None]:
    """Within this, those of the modules that are not imported yet seem not to be installed."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
