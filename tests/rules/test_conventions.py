"""What all rules and their runbooks have in common, beside what the linter finds (tests/scripts)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from perennial_spec import names

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules"
RUNBOOKS = ROOT / "monitoring" / "runbooks"
PARTS = ["## Meaning", "## Impact", "## Diagnosis", "## What Perennial does by itself", "## Mitigation"]


def groups() -> dict[str, dict]:
    """By name, which no two files share."""
    found = [group for file in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    assert len({group["name"] for group in found}) == len(found)
    return {group["name"]: group for group in found}


def rules() -> list[dict]:
    return [rule for group in groups().values() for rule in group["rules"]]


def test_promtool_finds_nothing_wrong() -> None:
    files = sorted(map(str, RULES.glob("*.yml")))
    done = subprocess.run(
        ["promtool", "check", "rules", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted(RUNBOOKS.glob("*.md")), ids=lambda file: file.stem)
def test_a_runbook_says_what_it_must_and_its_queries_are_valid(file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    assert text.startswith(f"# {file.stem}\n")
    found = [line for line in text.splitlines() if line.startswith("## ")]
    assert found == PARTS
    queries = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    assert queries
    checked = {"groups": [{"name": "g", "rules": [{"record": f"q{n}", "expr": q} for n, q in enumerate(queries)]}]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump(checked))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "queries.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    known = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("perennial_")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for metric in re.findall(r"\bperennial[_:][\w:]+", "\n".join(queries)):
        assert metric.removesuffix("_bucket") in known | recorded, metric


def test_runbooks_use_only_commands_that_there_are() -> None:
    from perennial_cli.commands import COMMANDS

    for file in RUNBOOKS.glob("*.md"):
        used = set(re.findall(r"`perennial ([a-z]+)", file.read_text()))
        assert used <= set(COMMANDS), f"{file.name}: {used - set(COMMANDS)}"


def test_the_tests_know_in_which_order_each_group_is_evaluated(world) -> None:
    assert set(groups()) == set(world.order)


def test_the_windows_are_judged_alike() -> None:
    found = groups()
    texts = {
        w: yaml.safe_dump(found[f"perennial-drift-{w}"]["rules"], width=10_000)
        .replace(w, "W")
        .replace(f"<= {seconds}", "<= S")
        for w, seconds in {"5m": 300, "1h": 3600, "1d": 86400}.items()
    }
    assert texts["5m"] == texts["1h"] == texts["1d"]
