"""The platform's own checks on a window of data: what no model can be trained on, whatever the spec expects. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from perennial_spec.load import Pipeline
from perennial_spec.validation import FailedCheck

if TYPE_CHECKING:
    import pyarrow as pa

NEWEST = timedelta(days=7)
"""A feed that broke lately is hidden by the rows before: the newest days are looked at by themselves."""
MIN_EXPECTED = 50
"""Values that the newest days should have by the share before; with fewer, none may be chance (gusts on a calm evening)."""

NAMES = ("perennial_rows", "perennial_label_present", "perennial_label_classes", "perennial_column_not_all_null")


def own_checks(window: pa.Table, pipeline: Pipeline) -> tuple[int, list[FailedCheck]]:
    """How many checks were made, and those that failed; each is of severity `stop`.

    Args:
        window: the rows in `data.window`.
    """
    data = pipeline.spec.data
    if window.num_rows == 0:
        return 1, [FailedCheck(name="perennial_rows", message="there are no rows in data.window")]
    label = data.label.column
    checks = [_label_present(window, label)]
    if pipeline.spec.model.kind == "xgboost.classifier":
        checks.append(_label_classes(window, label))
    before, newest = _divided(window, data.timestamp)
    inputs = [name for name in window.column_names if name != label]
    checks += [_not_all_null(window, name) or _not_broken_off(before, newest, name) for name in inputs]
    return len(checks), [failed for failed in checks if failed]


def _label_present(window: pa.Table, label: str) -> FailedCheck | None:
    if window.column(label).null_count < window.num_rows:
        return None
    return FailedCheck(
        name="perennial_label_present",
        column=label,
        message=f"the label is null in all {window.num_rows:,} rows of the window",
    )


def _label_classes(window: pa.Table, label: str) -> FailedCheck | None:
    import pyarrow.compute as pc

    values = pc.unique(window.column(label).drop_null()).to_pylist()
    if len(values) != 1:
        return None
    rows = window.num_rows - window.column(label).null_count
    return FailedCheck(
        name="perennial_label_classes",
        column=label,
        message=f"all {rows:,} labels of the window are {values[0]}: a classifier needs both classes",
    )


def _divided(window: pa.Table, timestamp: str) -> tuple[pa.Table, pa.Table]:
    """The rows before the newest days, and those of the newest days."""
    import pyarrow.compute as pc

    start = pc.max(window.column(timestamp)).as_py() - NEWEST
    return window.filter(pc.field(timestamp) <= start), window.filter(pc.field(timestamp) > start)


def _not_all_null(window: pa.Table, name: str) -> FailedCheck | None:
    if window.column(name).null_count < window.num_rows:
        return None
    return _empty(name, f"the column is null in all {window.num_rows:,} rows of the window")


def _not_broken_off(before: pa.Table, newest: pa.Table, name: str) -> FailedCheck | None:
    if newest.column(name).null_count < newest.num_rows or before.num_rows == 0:
        return None
    filled = 1 - before.column(name).null_count / before.num_rows
    if filled * newest.num_rows < MIN_EXPECTED:
        return None
    days = f"the newest {NEWEST.days} days"
    return _empty(
        name, f"the column is null in all {newest.num_rows:,} rows of {days}; before, {filled:.0%} had a value"
    )


def _empty(name: str, message: str) -> FailedCheck:
    return FailedCheck(name="perennial_column_not_all_null", column=name, message=message)
