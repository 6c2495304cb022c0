from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from perennial_spec.errors import DataError, PlatformError
from perennial_spec.validation import ValidationRecord, folder_of, latest_passed, read_record, write_record


def record(version: int, passed: bool) -> ValidationRecord:
    return ValidationRecord(
        pipeline="demo",
        data_version=version,
        passed=passed,
        checks=3,
        at=datetime(2024, 1, 1, tzinfo=UTC),
        expectations_digest="d",
        rows=10,
    )


def test_the_newest_version_that_passed_is_found_by_number_not_by_text(tmp_path: Path) -> None:
    for version, passed in [(2, True), (9, True), (10, True), (11, False)]:
        write_record(str(tmp_path), record(version, passed))
    found = latest_passed(str(tmp_path), "demo")
    assert found is not None
    assert found.data_version == 10


def test_nothing_has_passed_before_the_first_record(tmp_path: Path) -> None:
    assert latest_passed(str(tmp_path), "demo") is None
    write_record(str(tmp_path), record(0, False))
    assert latest_passed(str(tmp_path), "demo") is None
    assert read_record(str(tmp_path), "demo", 7) is None


def test_a_store_may_be_a_file_uri(tmp_path: Path) -> None:
    store = (tmp_path / "a store").as_uri()
    write_record(store, record(1, True))
    assert read_record(str(tmp_path / "a store"), "demo", 1) == record(1, True)


def test_a_store_elsewhere_says_what_is_possible() -> None:
    with pytest.raises(PlatformError, match="s3://"):
        folder_of("s3://bucket/store", "demo")


def test_drafts_and_other_files_are_not_records(tmp_path: Path) -> None:
    file = write_record(str(tmp_path), record(1, True))
    (file.parent / ".2.77.draft").write_text("{")
    (file.parent / "notes.json").write_text("{}")
    found = latest_passed(str(tmp_path), "demo")
    assert found is not None
    assert found.data_version == 1
    assert sorted(path.name for path in file.parent.iterdir()) == [".2.77.draft", "1.json", "notes.json"]


def test_a_broken_record_names_its_file(tmp_path: Path) -> None:
    file = write_record(str(tmp_path), record(1, True))
    file.write_text("{}")
    with pytest.raises(DataError, match=r"1\.json: not a validation record: pipeline"):
        latest_passed(str(tmp_path), "demo")
