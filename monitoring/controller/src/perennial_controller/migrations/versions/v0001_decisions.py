"""The ledger: one row per event with its decision, its run and what came of it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, DateTime, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLE = "perennial_decisions"
OPEN = "decision IN ('received', 'merged', 'cooling_down', 'over_budget', 'waiting_for_data')"


def upgrade() -> None:
    """Make the table and its indexes."""
    time = DateTime(timezone=True)
    op.create_table(
        TABLE,
        Column("id", BigInteger, primary_key=True, autoincrement=True),
        Column("received_at", time, nullable=False),
        Column("kind", Text, nullable=False),
        Column("pipeline", Text, nullable=False),
        Column("dedupe_key", Text, nullable=False, unique=True),
        Column("summary", Text, nullable=False),
        Column("alert", Text),
        Column("action", Text),
        Column("actor", Text),
        Column("payload", JSONB, nullable=False),
        Column("duplicates", Integer, nullable=False, server_default=text("0")),
        Column("last_seen_at", time, nullable=False),
        Column("resolved_at", time),
        Column("decision", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("decided_at", time),
        Column("trail", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
        Column("dag_id", Text),
        Column("run_id", Text),
        Column("delivery", Text),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("next_attempt_at", time),
        Column("last_error", Text),
        Column("delivered_at", time),
        Column("outcome", Text),
        Column("finished_at", time),
        Column("model_version", Text),
        Column("data_version", BigInteger),
    )
    _index("of_pipeline", "pipeline", "id")
    _index("run", "dag_id", "run_id", where="delivery IS NOT NULL", unique=True)
    _index("outbox", "next_attempt_at", where="delivery = 'pending'")
    _index("open", "pipeline", where=OPEN)
    _index("unfinished", "id", where="delivery IS NOT NULL AND outcome IS NULL")


def downgrade() -> None:
    """Drop the ledger."""
    op.drop_table(TABLE)


def _index(name: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    condition = text(where) if where else None
    op.create_index(f"{TABLE}_{name}", TABLE, list(columns), unique=unique, postgresql_where=condition)
