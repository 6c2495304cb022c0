"""Retraining can be paused, or held by the breaker: decisions that are open, and the newest order is found quickly."""

from __future__ import annotations

from alembic import op
from sqlalchemy import column, table, text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = "perennial_decisions"
BEFORE = "decision IN ('received', 'merged', 'cooling_down', 'over_budget', 'waiting_for_data')"
OPEN = "decision IN ('received', 'paused', 'breaker_open', 'merged', 'cooling_down', 'over_budget', 'waiting_for_data')"


def upgrade() -> None:
    """Make the indexes."""
    _open(OPEN)
    orders = text("kind IN ('pause', 'resume')")
    op.create_index(f"{TABLE}_pauses", TABLE, ["pipeline", "id"], postgresql_where=orders)


def downgrade() -> None:
    """What was held so waits for a decision again; the orders stay on record."""
    op.drop_index(f"{TABLE}_pauses", TABLE)
    decisions = table(TABLE, column("decision"))
    op.execute(
        decisions.update().where(decisions.c.decision.in_(("paused", "breaker_open"))).values(decision="received")
    )
    _open(BEFORE)


def _open(where: str) -> None:
    op.drop_index(f"{TABLE}_open", TABLE)
    op.create_index(f"{TABLE}_open", TABLE, ["pipeline"], postgresql_where=text(where))
