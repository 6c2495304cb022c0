"""What became of the model that a run has made, and moments that must outlive a restart."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, DateTime, Text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE, MARKS = "perennial_decisions", "perennial_marks"


def upgrade() -> None:
    """Add both. Runs that ended before have no verdict: a rejected challenger among them counts as a failed run."""
    op.add_column(TABLE, Column("verdict", Text))
    op.create_table(
        MARKS,
        Column("name", Text, primary_key=True),
        Column("at", DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table(MARKS)
    op.drop_column(TABLE, "verdict")
