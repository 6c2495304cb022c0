"""Quiet hours hold events, and newer events supersede older ones: the index of what is open has both. The schedule becomes the
controller's, and begins anew: what was due before, Airflow has run."""

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
    """Make the index anew, and let schedules begin."""
    _open(OPEN)
    op.execute(text("UPDATE perennial_marks SET at = now() WHERE name LIKE 'schedule:%'"))


def downgrade() -> None:
    """What was held so waits for a decision again."""
    decisions = table(TABLE, column("decision"))
    held = decisions.c.decision.in_(("quiet_hours", "superseded"))
    op.execute(decisions.update().where(held).values(decision="received"))
    _open(BEFORE)


def _open(where: str) -> None:
    op.drop_index(f"{TABLE}_open", TABLE)
    op.create_index(f"{TABLE}_open", TABLE, ["pipeline"], postgresql_where=text(where))
