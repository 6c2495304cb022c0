"""Alerts whose run did not succeed get a successor."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = "perennial_decisions"
UNANSWERED = "kind = 'alert' AND outcome <> 'success' AND resolved_at IS NULL AND successor_id IS NULL"


def upgrade() -> None:
    """Add what a successor needs."""
    op.add_column(TABLE, Column("seen_data_version", BigInteger))
    op.add_column(TABLE, Column("successor_id", BigInteger))
    op.create_index(f"{TABLE}_unanswered", TABLE, ["id"], postgresql_where=text(UNANSWERED))


def downgrade() -> None:
    """Forget which row follows which; the rows stay."""
    op.drop_index(f"{TABLE}_unanswered", TABLE)
    op.drop_column(TABLE, "successor_id")
    op.drop_column(TABLE, "seen_data_version")
