"""Bringing the ledger's schema up to date, on a connection whose transaction the caller holds."""

from __future__ import annotations

from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Apply every migration that the database lacks."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "perennial_controller:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
