"""The real PostgreSQL under the real supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2  # type: ignore[import-untyped]
import pytest

from perennial_cli.embedded import databases, postgres, supervisor
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Part, Plan
from perennial_cli.embedded.parts import platform_parts
from perennial_cli.embedded.ports import choose_ports
from perennial_cli.embedded.secrets import ensure_secrets
from perennial_spec.errors import PlatformError

PROJECT = Path(__file__).resolve().parents[3]


@dataclass
class Server:
    """PostgreSQL and its databases, as `perennial up` starts them."""

    home: Home
    url: str
    parts: tuple[Part, ...]

    def up(self) -> None:
        supervisor.launch(self.home, lambda: Plan(self.home.instance(), self.parts), timeout=90)

    def ask(self, sql: str, **changes: Any) -> list[tuple[Any, ...]]:
        try:
            with psycopg2.connect(self.url, connect_timeout=5, **changes) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall()) if cursor.description else []
        except psycopg2.OperationalError as error:
            for name in ("postgres", "supervisor"):
                error.add_note(supervisor.log_tail(self.home, name, 40))
            raise

    def pid(self) -> int:
        state = supervisor.status(self.home)
        assert state
        return next(part.pid for part in state.parts if part.name == "postgres" and part.pid)


@pytest.fixture
def server(home: Home) -> Server:
    """Not started yet; ended after the test."""
    return make_server(home)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Running, for tests that leave it as it is."""
    home = supervisor.home_at(tmp_path_factory.mktemp("postgres") / "state")
    running = make_server(home)
    running.up()
    yield running
    supervisor.stop(home)


def make_server(home: Home) -> Server:
    ports, secrets = choose_ports(0), ensure_secrets(home)
    parts = platform_parts(home, PROJECT, ports, secrets)
    wanted = tuple(part for part in parts if part.name in {"postgres", "databases"})
    return Server(home, databases.url(ports.postgres, secrets.postgres_password, "perennial"), wanted)


def test_the_data_survive_a_crash_a_power_cut_and_a_restart(
    server: Server, kill_everything: Callable[[], list[int]]
) -> None:
    server.up()
    assert {name for (name,) in server.ask("SELECT datname FROM pg_database")} >= {"airflow", "mlflow", "perennial"}
    server.ask("CREATE TABLE kept (number int); INSERT INTO kept VALUES (1)")

    os.kill(server.pid(), signal.SIGKILL)
    _until_ready_again(server)
    assert server.ask("SELECT number FROM kept") == [(1,)]
    server.ask("INSERT INTO kept VALUES (2)")

    kill_everything()
    server.up()
    assert server.ask("SELECT number FROM kept ORDER BY number") == [(1,), (2,)]

    supervisor.stop(server.home)
    server.up()
    assert server.ask("SELECT count(*) FROM kept") == [(2,)]


def _until_ready_again(server: Server) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = supervisor.status(server.home)
        part = state and next(part for part in state.parts if part.name == "postgres")
        if part and part.restarts >= 1 and part.status == "ready":
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL was not started again")


def test_it_lets_in_only_who_has_the_password_which_is_on_no_command_line(shared: Server) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        shared.ask("SELECT 1", password="wrong")
    password = ensure_secrets(shared.home).postgres_password
    process = psutil.Process(shared.pid())
    for one in (process, *process.children(recursive=True)):
        assert password not in " ".join(one.cmdline())
    assert {entry.laddr.ip for entry in process.net_connections("tcp") if entry.status == "LISTEN"} == {"127.0.0.1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops its privileges")
def test_started_by_root_it_runs_as_another_user(shared: Server) -> None:
    assert psutil.Process(shared.pid()).uids().effective != 0


def test_secrets_of_another_state_folder_are_told_apart(shared: Server) -> None:
    with pytest.raises(PlatformError, match="does not let us in") as caught:
        databases.create_missing(shared.url.replace(":", ":x", 2).replace("postgresql:x", "postgresql:"))
    assert "restore one, or remove both" in str(caught.value)


def test_a_migration_is_remembered_by_the_database_it_was_made_in(
    shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def migrate(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 1 if len(calls) == 1 else 0)

    monkeypatch.setattr(subprocess, "run", migrate)
    with pytest.raises(PlatformError, match="cannot be migrated"):
        databases.migrate_airflow(shared.url)
    assert databases.migrate_airflow(shared.url)
    assert not databases.migrate_airflow(shared.url)
    assert len(calls) == 2
    shared.ask("SELECT 1")
    assert databases.migrated_for(shared.url) is not None


def test_a_folder_that_was_half_made_is_made_again(server: Server) -> None:
    unfinished = server.home.path / "postgres" / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    server.up()
    assert server.ask("SELECT 1") == [(1,)]
    assert not unfinished.exists()


def test_a_pid_file_whose_pid_now_belongs_to_another_program_does_not_stop_it(server: Server) -> None:
    server.up()
    supervisor.stop(server.home)
    stale = server.home.path / "postgres" / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{stale.parent}\n0\n1\n\n\n\nready\n")
    server.up()
    assert server.ask("SELECT 1") == [(1,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops its privileges")
def test_root_without_a_way_to_drop_privileges_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="setpriv") as caught:
        postgres.account_for(tmp_path)
    assert "ordinary user" in str(caught.value)
