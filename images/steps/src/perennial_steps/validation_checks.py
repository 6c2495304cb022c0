"""The platform's own checks on a window of data: what no model can be trained on, whatever the spec expects. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perennial_spec.load import Pipeline
from perennial_spec.validation import FailedCheck

if TYPE_CHECKING:
    import pyarrow as pa

MIN_NEWEST_ROWS = 100
"""In fewer rows a column that is seldom filled may well be empty by chance."""

NAMES = ("perennial_rows", "perennial_label_present", "perennial_label_classes", "perennial_column_not_all_null")


def own_checks(window: pa.Table, newest: pa.Table, pipeline: Pipeline) -> tuple[int, list[FailedCheck]]:
    """How many checks were made, and those that failed; each is of severity `stop`.

    Args:
        window: the rows in `data.window`.
        newest: those of them in the newest partition: a feed that broke this month is hidden by the months before.
    """
    data = pipeline.spec.data
    if window.num_rows == 0:
        return 1, [FailedCheck(name="perennial_rows", message="there are no rows in data.window")]
    label = data.label.column
    checks = [_label_present(window, label)]
    if pipeline.spec.model.kind == "xgboost.classifier":
        checks.append(_label_classes(window, label))
    inputs = [name for name in window.column_names if name != label]
    checks += [_not_all_null(window, newest, name) for name in inputs]
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


def _not_all_null(window: pa.Table, newest: pa.Table, name: str) -> FailedCheck | None:
    parts = {"the window": window}
    if newest.num_rows >= MIN_NEWEST_ROWS:
        parts["the newest partition"] = newest
    for what, rows in parts.items():
        if rows.column(name).null_count == rows.num_rows:
            message = f"the column is null in all {rows.num_rows:,} rows of {what}"
            return FailedCheck(name="perennial_column_not_all_null", column=name, message=message)
    return None
