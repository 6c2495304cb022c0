"""What became of a model version: the values of `names.TAG_VERDICT`."""

from __future__ import annotations

REGISTERED = "registered"
PASSED = "passed"
REJECTED = "rejected"
PROMOTED = "promoted"
ROLLED_BACK = "rolled_back"
