"""What the steps of a run came to is kept when it ends: the story must outlive Airflow's clean-up."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, text
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLE = "perennial_decisions"


def upgrade() -> None:
    """Add the column. Runs that ended before have no steps."""
    op.add_column(TABLE, Column("steps", JSONB, nullable=False, server_default=text("'[]'::jsonb")))


def downgrade() -> None:
    """Forget them."""
    op.drop_column(TABLE, "steps")
