"""The databases of the embedded platform: `python -m perennial_cli.embedded.databases` makes them and migrates Airflow's.

Airflow's migration takes seconds even when there is nothing to migrate, so the database remembers, in its own comment, for which
version that was done; a comment cannot outlive its database.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from typing import Any
from urllib.parse import quote

from perennial_cli.embedded.postgres import USER
from perennial_spec.errors import PlatformError

NAMES = ("airflow", "mlflow", "perennial")
SERVER_VARIABLE = "PERENNIAL_DATABASE_URL"


def url(port: int, password: str, database: str, driver: str = "") -> str:
    """Where a database is. Holds the password."""
    return f"postgresql{driver}://{USER}:{quote(password, safe='')}@127.0.0.1:{port}/{database}"


def create_missing(server: str) -> list[str]:
    """Make the databases that are not there. Returns their names.

    Args:
        server: URL of any database of the server.
    """
    with _connection(server) as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        there = {row[0] for row in cursor.fetchall()}
        missing = [name for name in NAMES if name not in there]
        for name in missing:
            cursor.execute(f'CREATE DATABASE "{name}"')
    return missing


def migrated_for(server: str) -> str | None:
    """The version of Airflow whose migration was finished, or None."""
    with _connection(server) as cursor:
        cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'airflow'")
        row = cursor.fetchone()
    return row[0] if row else None


def migrate_airflow(server: str) -> bool:
    """Migrate Airflow's database unless that was done for this version. Returns whether there was something to do.

    Raises:
        PlatformError: the migration failed; its output is on stderr.
    """
    version = f"airflow {importlib.metadata.version('apache-airflow-core')}"
    if migrated_for(server) == version:
        return False
    done = subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=False)
    if done.returncode != 0:
        raise PlatformError("Airflow's database cannot be migrated", expected="exit code 0", next="see the lines above")
    with _connection(server) as cursor:
        cursor.execute("COMMENT ON DATABASE airflow IS %s", (version,))
    return True


class _connection:  # noqa: N801 - used as a function
    """A cursor on a connection of its own that commits each statement: CREATE DATABASE knows no transaction."""

    def __init__(self, server: str) -> None:
        import psycopg2  # type: ignore[import-untyped]

        try:
            self._connection = psycopg2.connect(server, connect_timeout=10)
        except psycopg2.OperationalError as error:
            hint = "the secrets and the data of this state folder are not of one another; restore one, or remove both"
            raise PlatformError(
                f"PostgreSQL does not let us in: {str(error).strip()}",
                where="the embedded PostgreSQL",
                next=hint if "password" in str(error) else "look with: perennial logs postgres",
            ) from None
        self._connection.autocommit = True

    def __enter__(self) -> Any:
        return self._connection.cursor()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def main(arguments: list[str]) -> int:
    """`create`, or `migrate`."""
    server = os.environ[SERVER_VARIABLE]
    try:
        if arguments == ["migrate"]:
            migrate_airflow(server)
        else:
            create_missing(server)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
