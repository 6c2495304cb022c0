"""The ledger's table. Migrations make it; a test keeps both the same."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()
_TIME = DateTime(timezone=True)

decisions = Table(
    "perennial_decisions",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    # -- the event, written before anything is done about it --
    Column("received_at", _TIME, nullable=False),
    Column("kind", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("dedupe_key", Text, nullable=False, unique=True),
    Column("summary", Text, nullable=False),
    Column("alert", Text),
    Column("action", Text),
    Column("actor", Text),
    Column("payload", JSONB, nullable=False),
    Column("duplicates", Integer, nullable=False, server_default=text("0")),
    Column("last_seen_at", _TIME, nullable=False),
    Column("resolved_at", _TIME),
    # -- the decision --
    Column("decision", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", _TIME),
    Column("trail", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    # -- the run that it started, or that it was merged into --
    Column("dag_id", Text),
    Column("run_id", Text),
    Column("delivery", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", _TIME),
    Column("last_error", Text),
    Column("delivered_at", _TIME),
    # -- what came of it --
    Column("outcome", Text),
    Column("finished_at", _TIME),
    Column("model_version", Text),
    Column("data_version", BigInteger),
    Column("verdict", Text),
    # -- the row that asks again, when an alert's run did not succeed --
    Column("seen_data_version", BigInteger),
    Column("successor_id", BigInteger),
    # -- its steps, as they were when it ended --
    Column("steps", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
)
marks = Table(
    "perennial_marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("at", _TIME, nullable=False),
)
"""Moments that are no decisions; see `marks.py`."""
UNANSWERED = text("kind = 'alert' AND outcome <> 'success' AND resolved_at IS NULL AND successor_id IS NULL")
"""Alerts that fire although their run is over without success, and that no other row follows."""

Index("perennial_decisions_of_pipeline", decisions.c.pipeline, decisions.c.id)
Index(
    "perennial_decisions_run",
    decisions.c.dag_id,
    decisions.c.run_id,
    unique=True,
    postgresql_where=text("delivery IS NOT NULL"),
)
Index("perennial_decisions_outbox", decisions.c.next_attempt_at, postgresql_where=text("delivery = 'pending'"))
Index(
    "perennial_decisions_open",
    decisions.c.pipeline,
    postgresql_where=text(
        "decision IN ('received', 'paused', 'quiet_hours', 'breaker_open', 'merged', 'cooling_down', 'over_budget', "
        "'waiting_for_data', 'superseded')"
    ),
)
Index(
    "perennial_decisions_pauses",
    decisions.c.pipeline,
    decisions.c.id,
    postgresql_where=text("kind IN ('pause', 'resume')"),
)
Index("perennial_decisions_unanswered", decisions.c.id, postgresql_where=UNANSWERED)
Index(
    "perennial_decisions_unfinished", decisions.c.id, postgresql_where=text("delivery IS NOT NULL AND outcome IS NULL")
)
