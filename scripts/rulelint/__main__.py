"""`python -m scripts.rulelint`: lint the project's rules; 1 when something is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.rulelint.checks import Project, all_findings
from scripts.rulelint.rules import read_rules

MONITORING = Path("monitoring")


def main(monitoring: Path = MONITORING) -> int:
    """The exit code. Findings go to stderr, a block each."""
    files = sorted((monitoring / "rules").glob("*.yml"))
    rules = [rule for file in files for rule in read_rules(file)]
    found = all_findings(Project(rules, monitoring / "runbooks"))
    for finding in found:
        print(finding, file=sys.stderr)
    if not rules:
        print(f"{monitoring}: there are no rules; run this in the project's folder", file=sys.stderr)
    return 1 if found or not rules else 0


if __name__ == "__main__":
    sys.exit(main())
