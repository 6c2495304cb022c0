"""One file per version of the schema; Alembic reads them."""
