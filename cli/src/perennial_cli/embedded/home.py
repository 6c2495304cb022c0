"""Where the state of the embedded platform is: one folder, `.perennial` in the project unless PERENNIAL_HOME says otherwise."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from perennial_spec.errors import PlatformError

HOME_VARIABLE = "PERENNIAL_HOME"
FOLDER = ".perennial"


@dataclass(frozen=True)
class Home:
    """The state folder and the places in it."""

    path: Path

    @property
    def plan(self) -> Path:
        """What the supervisor runs. Holds secrets, mode 0600."""
        return self.path / "plan.json"

    @property
    def state(self) -> Path:
        """What the supervisor last saw of its parts."""
        return self.path / "state.json"

    @property
    def platform(self) -> Path:
        """Endpoints, for other commands. Holds the database's password, mode 0600."""
        return self.path / "platform.json"

    @property
    def settings(self) -> Path:
        """What `up` was told last."""
        return self.path / "settings.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives; the kernel lets go of it when it is killed."""
        return self.path / "supervisor.lock"

    @property
    def up_lock(self) -> Path:
        """Held by `up` while it starts a supervisor, so that two at once start one."""
        return self.path / "up.lock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def work(self) -> Path:
        """Working directory of the parts: empty, because Python imports from it."""
        return self.path / "work"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def store(self) -> Path:
        """Delta tables of the pipelines."""
        return self.path / "store"

    @property
    def lake(self) -> Path:
        """Sources of the demonstration."""
        return self.path / "lake"

    def log(self, part: str) -> Path:
        """The log file of a part."""
        return self.logs / f"{part}.log"

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            PlatformError: it cannot be made or written to.
        """
        try:
            for folder in (self.path, self.logs, self.work, self.store, self.lake):
                folder.mkdir(parents=True, exist_ok=True)
            self.secrets.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise PlatformError(
                f"the state folder cannot be made: {error.strerror}",
                where=str(error.filename or self.path),
                expected="a folder that this user may write to",
                next=f"choose another with {HOME_VARIABLE}=/path, or mend its permissions",
            ) from error

    def instance(self) -> str:
        """Identity of this state folder, made once."""
        file = self.path / "instance"
        if not file.exists():
            write_private(file, uuid.uuid4().hex)
        return file.read_text().strip()


def find_home(path: Path | None = None) -> Home:
    """The state folder: `path`, or PERENNIAL_HOME, or `.perennial` in the project that holds the working directory."""
    named = path or (Path(os.environ[HOME_VARIABLE]) if os.environ.get(HOME_VARIABLE) else None)
    return Home((named or find_project() / FOLDER).expanduser().resolve())


def find_project(start: Path | None = None) -> Path:
    """The folder with `dags/pipelines`, at `start` (the working directory) or above it.

    Raises:
        PlatformError: there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dags" / "pipelines").is_dir():
            return folder
    raise PlatformError(
        "this is not inside a Perennial project",
        where=str(start),
        expected="a folder with dags/pipelines, here or above",
        next="change to the project's folder",
    )


def write_private(file: Path, text: str) -> None:
    """Replace a file's content at once; only this user can read it."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    fresh.replace(file)
