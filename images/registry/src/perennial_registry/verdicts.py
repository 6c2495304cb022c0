"""What became of a model version: the values of `names.TAG_VERDICT`."""

from __future__ import annotations

REGISTERED = "registered"
PASSED = "passed"
REJECTED = "rejected"
PROMOTED = "promoted"
ROLLED_BACK = "rolled_back"

MAX_REASON = 500
"""Characters of `names.TAG_VERDICT_REASON`."""


def reason_of(actor: str, text: str) -> str:
    """Who gave a version its verdict, and why, as it is kept with the version."""
    return f"{actor}: {text}"[:MAX_REASON]
