"""Quiet hours hold events, and newer events supersede older ones: the index of what is open has both."""

from __future__ import annotations

from alembic import op
from sqlalchemy import column, table, text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLE = "perennial_decisions"
BEFORE = (
    "decision IN ('received', 'paused', 'breaker_open', 'merged', 'cooling_down', 'over_budget', 'waiting_for_data')"
)
OPEN = (
    "decision IN ('received', 'paused', 'quiet_hours', 'breaker_open', 'merged', 'cooling_down', 'over_budget', "
    "'waiting_for_data', 'superseded')"
)


def upgrade() -> None:
    """Make the index anew."""
    _open(OPEN)


def downgrade() -> None:
    """What was held so waits for a decision again."""
    decisions = table(TABLE, column("decision"))
    held = decisions.c.decision.in_(("quiet_hours", "superseded"))
    op.execute(decisions.update().where(held).values(decision="received"))
    _open(BEFORE)


def _open(where: str) -> None:
    op.drop_index(f"{TABLE}_open", TABLE)
    op.create_index(f"{TABLE}_open", TABLE, ["pipeline"], postgresql_where=text(where))
