"""Writes the table of docs/alerts.md from the rules and their runbooks, so that it cannot say anything else. `make render` calls it.

`--check` writes nothing, and fails when the page is not what it would write.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "alerts.md"
BEGIN, END = "<!-- begin: written by `make render` -->\n", "<!-- end -->\n"
TITLES = {
    "drift-alerts": "Drift",
    "quality": "Quality",
    "watch": "After a promotion",
    "serving": "The model servers",
    "platform": "The platform and its data",
    "loop": "The loop itself",
}
"""Headings by rule file, in their order; a file that is not here follows under its own name."""


def render(text: str) -> str:
    """The page with its tables written anew; what stands outside of the marks stays."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + tables() + "\n" + END + after


def tables() -> str:
    """A table for each file that has alerts."""
    files = {file.stem: file for file in sorted((ROOT / "monitoring" / "rules").glob("*.yml"))}
    order = [*(stem for stem in TITLES if stem in files), *(stem for stem in files if stem not in TITLES)]
    return "\n\n".join(table for stem in order if (table := _table(stem, files[stem])))


def _table(stem: str, file: Path) -> str:
    rules = [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"] if "alert" in rule]
    if not rules:
        return ""
    title = TITLES.get(stem, stem.replace("-", " ").capitalize())
    head = ["| alert | severity | action | for | meaning |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([f"### {title}", "", *head, *(_row(rule) for rule in rules)])


def _row(rule: dict[str, object]) -> str:
    name, labels = rule["alert"], rule["labels"]
    assert isinstance(labels, dict)
    cells = (
        f"[{name}](../monitoring/runbooks/{name}.md)",
        labels.get("severity", "from the spec"),
        labels.get("action", "from the spec"),
        rule.get("for", "at once"),
        _meaning(ROOT / "monitoring" / "runbooks" / f"{name}.md"),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _meaning(runbook: Path) -> str:
    """The first paragraph of the section Meaning, in one line."""
    found = re.search(r"^## Meaning\n(.+?)(?:\n\n|\n#|\Z)", runbook.read_text(), re.DOTALL | re.MULTILINE)
    text = " ".join(found[1].split()).replace("|", "\\|") if found else ""
    return text.replace("](../../docs/", "](")  # links are read from this page's folder


def main(arguments: list[str]) -> int:
    """The exit code: 1 when `--check` finds a difference."""
    now = TARGET.read_text()
    wanted = render(now)
    if "--check" not in arguments:
        TARGET.write_text(wanted)
    elif now != wanted:
        print(f"{TARGET.relative_to(ROOT)}: not what the rules and runbooks say\n  next: make render", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
