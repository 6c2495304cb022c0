"""The linter of the rules: the project's are clean, and each check can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
URL = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"


def alert(name: str = "PerennialErrorsHigh", /, **changes: str | None) -> str:
    """An alert that is as it should be, but for the changes; None leaves a line out."""
    lines: dict[str, str | None] = {
        "comment": None,
        "expr": "perennial_champion > 0",
        "for": "1m",
        "severity": "warning",
        "action": "none",
        "summary": "all is lost",
        "description": "{{ $value }} of it",
        "runbook_url": f"{URL}/{name}.md",
        **changes,
    }
    text = f"      # {lines['comment']}\n" if lines["comment"] else ""
    text += f"      - alert: {name}\n        expr: {lines['expr']}\n"
    text += f"        for: {lines['for']}\n" if lines["for"] else ""
    for title, keys in (("labels", ("severity", "action")), ("annotations", ("summary", "description", "runbook_url"))):
        text += f"        {title}:\n          x: y\n"
        text += "".join(f"          {key}: '{lines[key]}'\n" for key in keys if lines[key])
    return text


def record(expr: str, name: str = "perennial:it:rate5m", comment: str = "") -> str:
    above = f"      # {comment}\n" if comment else ""
    return f"{above}      - record: {name}\n        expr: '{expr}'\n"


@pytest.fixture
def lint(tmp_path: Path):
    """Runs the linter on rules, and gives what it says of them; names that no rule fires are no concern here."""

    def run(*rules: str) -> list[str]:
        (tmp_path / "monitoring" / "rules").mkdir(parents=True, exist_ok=True)
        (tmp_path / "monitoring" / "runbooks").mkdir(exist_ok=True)
        if any("alert: " in rule for rule in rules):
            (tmp_path / "monitoring" / "runbooks" / "PerennialErrorsHigh.md").write_text("# PerennialErrorsHigh\n")
        groups = "groups:\n  - name: g\n    rules:\n" + "".join(rules)
        (tmp_path / "monitoring" / "rules" / "it.yml").write_text(groups)
        from scripts.rulelint.checks import Project, all_findings
        from scripts.rulelint.rules import read_rules

        project = Project(
            read_rules(tmp_path / "monitoring" / "rules" / "it.yml"), tmp_path / "monitoring" / "runbooks"
        )
        found = [str(finding).replace(f"{tmp_path}/", "") for finding in all_findings(project)]
        return [text for text in found if "no rule fires" not in text]

    return run


def test_the_projects_rules_are_clean() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.rulelint"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_folder_without_rules_is_an_error(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "scripts.rulelint"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "there are no rules" in done.stderr


def test_a_good_alert_and_a_good_record_are_clean(lint) -> None:
    assert lint(alert(), record("sum(rate(perennial_requests_total[5m]))")) == []


def test_a_finding_names_file_and_line_and_says_what_to_do(lint) -> None:
    [found] = lint(record("perennial_champion"), alert(severity=None))
    assert found == (
        "monitoring/rules/it.yml:6: PerennialErrorsHigh has no severity\n"
        "  next: add the label severity: warning or critical"
    )


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (record("perennial_champion", "Perennial:it"), "Perennial:it is not how records are named here"),
        (record("perennial_champion", "perennial:a:b:c"), "is not how records are named here"),
        (record("perennial_chmpion"), "perennial:it:rate5m reads perennial_chmpion, which nothing exports"),
        (record('{job="x"}'), "reads series without a name"),
        (record("perennial:nobody:records"), "reads perennial:nobody:records, which nothing exports"),
        (record("sum(perennial_champion"), "is no PromQL"),
        (alert(severity="page"), "has no severity"),
        (alert(severity="none"), "has no severity"),
        (alert(action=None), "has no action"),
        (alert(action="panic"), "has an unknown action"),
        (alert(summary=None), "has no annotation summary"),
        (alert(description=None), "has no annotation description"),
        (alert(runbook_url=None), "has no annotation runbook_url"),
        (alert(runbook_url="https://example.com"), "names another page than its runbook"),
        (alert(**{"for": None}), "has neither for nor keep_firing_for"),
        (alert(description="{{ query \"max(perennial_chmpion)\" }}"), "'s description reads perennial_chmpion"),
        (
            alert(description="{{ with printf `max(perennial_chmpion{a=%q})` $x | query }}{{ end }}"),
            "'s description reads perennial_chmpion",
        ),
        (record("rate(perennial_requests_total[30s])"), "rate() over 30 s: one failed scrape leaves it without a value"),
        (record("max_over_time(rate(perennial_requests_total[30s])[1h:1m])"), "rate() over 30 s"),
        (record("perennial_champion / perennial_workers"), "divides by perennial_workers, which may be zero"),
        (record("1 / sum(perennial_workers)"), "divides by sum(perennial_workers), which may be zero"),
        (record("1 / (perennial_workers > -1)"), "may be zero"),
        (record("1 / (perennial_workers > bool 0)"), "may be zero"),
        (record("1 / (perennial_workers - 1)"), "may be zero"),
        (record("perennial_champion % perennial_workers"), "may be zero"),
    ],
)  # fmt: skip
def test_each_check_can_fail(lint, rule: str, says: str) -> None:
    found = lint(rule)
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(
    "rule",
    [
        alert(comment="At once: it counts.", **{"for": None}),
        alert(action=None, expr="perennial_champion * on (pipeline) group_left (action) perennial_retrain_on"),
        record("histogram_quantile(0.9, sum by (le) (rate(perennial_request_duration_seconds_bucket[1m])))"),
        record("up + on () ALERTS + on () prometheus_rule_evaluation_failures_total"),
        record("1 / (perennial_workers > 0)"),
        record("1 / sum(perennial_workers != 0)"),
        record("1 / (perennial_workers + 0.5)"),
        record("1 / count(perennial_workers)"),
        record("1 / clamp_min(perennial_workers, 1)"),
        record("(perennial_workers - 1 > 0) * (1 / (9 * (perennial_workers - 1)))"),
        record("1 / perennial_workers", comment="never zero: a server has one at least"),
        record("1 / perennial:other") + record("perennial_workers > 0", "perennial:other"),
    ],
)
def test_what_is_right_is_not_found(lint, rule: str) -> None:
    assert lint(rule) == []


def test_a_record_of_which_one_half_may_be_zero_is_no_divisor(lint) -> None:
    halves = record("perennial_workers > 0", "perennial:other"), record("perennial_workers", "perennial:other")
    [found] = lint(record("1 / perennial:other"), *halves)
    assert "divides by perennial:other" in found


def test_an_alert_without_a_name_in_the_code_and_a_runbook_without_an_alert_are_found(lint) -> None:
    found = lint(alert("PerennialUnheardOf"))
    assert [text.split(": ", 1)[1].split("\n")[0] for text in found] == [
        "PerennialUnheardOf has no runbook",
        "PerennialUnheardOf is not in perennial_spec.names",
        "no alert is named PerennialErrorsHigh",
    ]


def test_a_name_without_an_alert_is_found(tmp_path: Path) -> None:
    from scripts.rulelint.checks import Project, known_by_name

    assert any("no rule fires PerennialFeatureDrift" in str(found) for found in known_by_name(Project([], tmp_path)))
