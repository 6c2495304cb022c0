"""What a supervisor and its workers tell each other. Imports next to nothing: the supervisor has it for as long as it lives.

supervisor --ACCEPT--> answer from now on, ready or not         worker --ANSWERS--> it takes connections
           --LEAVE---> another answers in your place: end              --LOADED---> it has all that the routes need
           --DRAIN---> end, as after SIGTERM
           --END-----> end, as after SIGINT
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

ACCEPT, LEAVE, DRAIN, END = b"a", b"l", b"d", b"e"
ANSWERS, LOADED = b"a", b"l"


@dataclass(frozen=True)
class Post:
    """What a worker is started with, beside the settings."""

    slot: int
    """Its counters have this number."""
    folder: str
    """Private to the workers of one supervisor."""
    listener: int
    """Descriptor of the socket that all of them answer on."""
    line: int
    """Descriptor of the line to the supervisor."""


@dataclass(frozen=True)
class Roll:
    """Who is there, as the supervisor says."""

    supervisor: int
    """Its process id."""
    workers: tuple[int, ...] = ()
    """Those of its workers, until they are known to have ended."""
    answering: int = 0
    """How many of them answer."""

    def write(self, folder: Path) -> None:
        """Replace what was said before."""
        replace_text(folder / "workers.json", json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Roll:
        found = json.loads(folder.joinpath("workers.json").read_bytes())
        return cls(found["supervisor"], tuple(found["workers"]), found["answering"])


def replace_text(file: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, whoever else writes it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(text)
    temporary.replace(file)
