"""The checks, each a function of the rules; `all_findings` runs them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from scripts.rulelint import promql
from scripts.rulelint.rules import Finding, Rule

from perennial_spec import names

RUNBOOK_BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"
SCRAPE_INTERVAL = timedelta(seconds=15)
"""The default outside one machine; a rate needs several scrapes, or one that fails leaves it without a value."""
MIN_WINDOW = 4 * SCRAPE_INTERVAL
FOREIGN = re.compile(r"^(up|ALERTS|ALERTS_FOR_STATE|process_start_time_seconds|(prometheus|alertmanager)_\w+)$")
"""Series that Prometheus and Alertmanager make themselves."""
POSITIVE = frozenset({names.REFERENCE_ROWS, names.REFERENCE_SHARE, names.DRIFT_THRESHOLD})
"""Metrics of ours that are above zero by construction."""
_RECORD = re.compile(r"^perennial:[a-z][a-z0-9_]*(:[a-z0-9_]+)?$")
_ALERT = re.compile(r"^Perennial([A-Z][a-z0-9]*)+$")
_ANNOTATIONS = ("summary", "description", "runbook_url")
_PRINTF = re.compile(r"printf `([^`]*)`[^|}]*\| query")
_QUERY = re.compile(r'\bquery "((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Project:
    """All rules, and what they must agree with."""

    rules: Sequence[Rule]
    runbooks: Path
    """The folder with one page per alert."""

    @property
    def records(self) -> frozenset[str]:
        return frozenset(rule.record for rule in self.rules if rule.record)


def all_findings(project: Project) -> list[Finding]:
    """Everything that is wrong, in the order of the files."""
    found = [finding for check in CHECKS for finding in check(project)]
    return sorted(found, key=lambda finding: (finding.file, finding.line, finding.what))


def readable(project: Project) -> Iterator[Finding]:
    """Every expression can be parsed; other checks skip one that cannot."""
    for rule in project.rules:
        for where, text in _expressions(rule):
            if _tree(text) is None:
                yield _finding(rule, f"{where} is no PromQL: {text.strip()[:60]!r}", "correct it; promtool says more")


def named_well(project: Project) -> Iterator[Finding]:
    """Names of records and alerts."""
    for rule in project.rules:
        if rule.record and not _RECORD.match(rule.record):
            shape = "perennial:WHAT or perennial:WHAT:HOW, in small letters, as in perennial:requests:rate5m"
            yield _finding(rule, f"{rule.record} is not how records are named here", f"name it {shape}")
        if rule.alert and not _ALERT.match(rule.alert):
            yield _finding(rule, f"{rule.alert} is not how alerts are named here", "name it PerennialWhatIsWrong")


def known_by_name(project: Project) -> Iterator[Finding]:
    """Each alert is in `perennial_spec.names`, and each alert there is a rule."""
    known = {value for name, value in vars(names).items() if name.startswith("ALERT_")}
    there = {rule.alert for rule in project.rules if rule.alert}
    for rule in project.rules:
        if rule.alert and rule.alert not in known:
            yield _finding(rule, f"{rule.alert} is not in perennial_spec.names", "add it there as ALERT_...")
    for alert in sorted(known - there):
        yield Finding(
            "images/spec/src/perennial_spec/names.py", 1, f"no rule fires {alert}", "write it, or remove the name"
        )


def known_metrics(project: Project) -> Iterator[Finding]:
    """Rules read what a part exports or another rule records: a name with a typo is no error to Prometheus, and never fires."""
    exported = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("perennial_")}
    for rule in project.rules:
        for where, text in _expressions(rule):
            for metric in sorted(promql.metrics(tree) if (tree := _tree(text)) is not None else ()):
                base = re.sub(r"_(bucket|count|sum)$", "", metric) if "_seconds_" in metric else metric
                if base not in exported and metric not in project.records and not FOREIGN.match(metric):
                    todo = "correct the name, or add it to perennial_spec.names and to the part that exports it"
                    yield _finding(
                        rule, f"{where} reads {metric or 'series without a name'}, which nothing exports", todo
                    )


def contract(project: Project) -> Iterator[Finding]:
    """Labels and annotations that the controller, Alertmanager and people rely on."""
    for rule in project.rules:
        if not rule.alert:
            continue
        severities = ("none",) if rule.alert == names.ALERT_WATCHDOG else ("warning", "critical")
        if rule.labels.get("severity") not in severities:
            yield _finding(rule, f"{rule.alert} has no severity", f"add the label severity: {' or '.join(severities)}")
        if "action" not in rule.labels and "group_left (action)" not in rule.expr:
            todo = "add the label action: none, or join perennial:retrain_action as PerennialFeatureDrift does"
            yield _finding(rule, f"{rule.alert} has no action", todo)
        if rule.labels.get("action", "none") not in ("retrain", "rollback", "none"):
            yield _finding(rule, f"{rule.alert} has an unknown action", "retrain, rollback or none")
        for missing in (name for name in _ANNOTATIONS if not rule.annotations.get(name, "").strip()):
            yield _finding(rule, f"{rule.alert} has no annotation {missing}", "add it; the description with figures")


def runbooks(project: Project) -> Iterator[Finding]:
    """One page per alert, and no other."""
    there = {rule.alert for rule in project.rules if rule.alert}
    for rule in project.rules:
        if not rule.alert:
            continue
        wanted = f"{RUNBOOK_BASE}/{rule.alert}.md"
        if rule.annotations.get("runbook_url", wanted) != wanted:
            yield _finding(rule, f"{rule.alert} names another page than its runbook", f"runbook_url: {wanted}")
        if not (project.runbooks / f"{rule.alert}.md").is_file():
            yield _finding(rule, f"{rule.alert} has no runbook", f"write {project.runbooks / rule.alert}.md")
    for page in sorted(project.runbooks.glob("*.md")):
        if page.stem not in there:
            yield Finding(str(page), 1, f"no alert is named {page.stem}", "remove the page, or name it after its alert")


def patience(project: Project) -> Iterator[Finding]:
    """A single scrape that fails, or a single bad value, must neither wake anybody nor end an alert."""
    for rule in project.rules:
        if rule.alert and not rule.waits and "at once" not in rule.comment.lower():
            todo = "set `for` or `keep_firing_for`, or say in a comment above it why it fires `at once`"
            yield _finding(rule, f"{rule.alert} has neither for nor keep_firing_for", todo)


def windows(project: Project) -> Iterator[Finding]:
    """A window must hold several scrapes."""
    for rule in project.rules:
        tree = _tree(rule.expr)
        for function, window in promql.rate_windows(tree) if tree is not None else ():
            if window < MIN_WINDOW:
                what = f"{function}() over {window.total_seconds():g} s: one failed scrape leaves it without a value"
                todo = f"a window of at least {MIN_WINDOW.total_seconds():g} s, four scrapes of {SCRAPE_INTERVAL.seconds} s"
                yield _finding(rule, what, todo)


def divisions(project: Project) -> Iterator[Finding]:
    """Nothing is divided by what may be zero: NaN and Inf compare as nobody expects."""
    trees = {rule: tree for rule in project.rules if (tree := _tree(rule.expr)) is not None}
    positive = _positive_records(trees)
    for rule, tree in trees.items():
        guards = promql.guarded(tree)
        for divisor in promql.divisors(tree):
            if not promql.never_zero(divisor, positive, guards) and "never zero" not in rule.comment.lower():
                what = f"{rule.name} divides by {divisor.prettify().strip()[:60]}, which may be zero"
                todo = "divide by (... > 0), or say in a comment above it why it is `never zero`"
                yield _finding(rule, what, todo)


def _positive_records(trees: dict[Rule, Any]) -> frozenset[str]:
    """Metrics and records that are never zero; a record that several rules make must be so in each."""
    positive = set(POSITIVE)
    for _ in range(len(trees)):  # a record may rest on one that stands below it
        maybe: dict[str, bool] = {}
        for rule, tree in trees.items():
            if rule.record:
                good = promql.never_zero(tree, positive, promql.guarded(tree))
                maybe[rule.record] = maybe.get(rule.record, True) and good
        found = positive | {record for record, good in maybe.items() if good}
        if found == positive:
            break
        positive = found
    return frozenset(positive)


def _expressions(rule: Rule) -> Iterator[tuple[str, str]]:
    """Every query of a rule: its own, and those that its annotations make."""
    yield rule.name, rule.expr
    for name, text in rule.annotations.items():
        for template in _PRINTF.findall(text):
            yield f"{rule.name}'s {name}", re.sub(r"%[a-z]", '"x"', template)
        for query in _QUERY.findall(text):
            yield f"{rule.name}'s {name}", query.replace('\\"', '"')


def _tree(text: str) -> Any:
    try:
        return promql.parse(text)
    except ValueError:
        return None


def _finding(rule: Rule, what: str, todo: str) -> Finding:
    return Finding(rule.file, rule.line, what, todo)


CHECKS: Iterable[Callable[[Project], Iterator[Finding]]] = (
    readable,
    named_well,
    known_by_name,
    known_metrics,
    contract,
    runbooks,
    patience,
    windows,
    divisions,
)
