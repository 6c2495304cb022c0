"""Alembic's entry: runs the migrations on the connection that it is given, within its transaction."""

from __future__ import annotations

from alembic import context

from perennial_controller.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="perennial_schema_version",
)
context.run_migrations()
