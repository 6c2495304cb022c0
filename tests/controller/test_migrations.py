"""The schema in the database is the schema in the code."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from perennial_controller.ledger import Ledger, engine_of
from perennial_controller.tables import metadata


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"version_table": "perennial_schema_version"})
    return list(compare_metadata(context, metadata))


async def test_controllers_that_start_together_make_the_schema_once_and_it_is_the_one_in_the_code(
    database: Any,
) -> None:
    ledgers = [Ledger(engine_of(database.url)) for _ in range(4)]
    await asyncio.gather(*(ledger.migrate() for ledger in ledgers))
    await ledgers[0].migrate()
    for ledger in ledgers:
        await ledger.close()

    engine = engine_of(database.url)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()


async def test_every_migration_can_be_taken_back_and_applied_again(database: Any) -> None:
    def down_and_up(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "perennial_controller:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        command.upgrade(config, "head")

    ledger = Ledger(engine_of(database.url))
    await ledger.migrate()
    await ledger.close()
    engine = engine_of(database.url)
    async with engine.begin() as connection:
        await connection.run_sync(down_and_up)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()


async def test_the_ledger_leaves_its_neighbours_in_the_database_alone(database: Any) -> None:
    database.run("CREATE TABLE decisions (mine int)")
    ledger = Ledger(engine_of(database.url + "?sslmode=disable"))
    await ledger.migrate()
    await ledger.close()
    assert database.run("SELECT column_name FROM information_schema.columns WHERE table_name = 'decisions'") == [
        ("mine",)
    ]


async def test_a_database_behind_a_unix_socket_answers(database: Any) -> None:
    postgres = database.postgres
    ledger = Ledger(engine_of(f"postgresql://postgres@/{database.name}?host={postgres.sockets}&port={postgres.port}"))
    await ledger.ping()
    await ledger.close()
