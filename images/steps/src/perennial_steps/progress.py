"""What a step tells the person who reads its log: one line per phase, with how long it took; never a secret."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CREDENTIALS = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*):[^\s/@]+@", re.IGNORECASE)
_PASSWORD = re.compile(r"(?P<key>\b(?:password|passwd|pwd|secret|token)=)(?:'[^']*'|[^\s&;'\"]+)", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`text` with the passwords of URLs and connection strings masked."""
    return _PASSWORD.sub(r"\g<key>***", _CREDENTIALS.sub(r"\g<scheme>:***@", text))


class _Readable(logging.Formatter):
    """`12:00:03 what happened`; the level only where it matters."""

    def format(self, record: logging.LogRecord) -> str:
        self._style._fmt = "%(asctime)s %(message)s"
        if record.levelno >= logging.WARNING:
            self._style._fmt = "%(asctime)s %(levelname)s %(message)s"
        return without_secrets(super().format(record))


def log_to_stderr() -> None:
    """Our lines from INFO, other libraries' from WARNING, to stderr: stdout and the result file stay free of them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Readable(datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("perennial_steps", "perennial_features", "perennial_spec"):
        logging.getLogger(ours).setLevel(logging.INFO)


@contextmanager
def phase(log: logging.Logger, what: str) -> Iterator[None]:
    """Log `what` with its duration when the block ends well."""
    start = time.perf_counter()
    yield
    log.info("%s (%.2f s)", what, time.perf_counter() - start)
