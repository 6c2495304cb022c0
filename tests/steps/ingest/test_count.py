"""Rows with a label, by the log or by the rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from perennial_steps.table import count_filled


@pytest.mark.parametrize("before", [1, 40], ids=["in the statistics", "beyond the columns that have some"])
def test_rows_with_a_value_are_counted_in_narrow_tables_and_in_wide_ones(tmp_path: Path, before: int) -> None:
    columns = {f"x{number}": [1, 2, 3] for number in range(before)}
    write_deltalake(str(tmp_path), pa.table({**columns, "late": pa.array([1, None, 0])}))
    write_deltalake(str(tmp_path), pa.table({**columns, "late": pa.array([None, None, 1])}), mode="append")
    assert (count_filled(str(tmp_path), 0, "late"), count_filled(str(tmp_path), 1, "late")) == (2, 3)
