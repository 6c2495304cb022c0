"""Whatever ends an ingest - a full disk, kill -9, another ingest - the table stays whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from perennial_spec.platform import Platform
from perennial_spec.step import StepResult, Verdict, parse_result
from perennial_steps.runner import run_step
from perennial_steps.table import read_state

BIG = "SELECT r::VARCHAR || id AS id, * EXCLUDE (id), md5(r::VARCHAR || id) AS noise FROM events, range({}) t(r)"


def content(uri: str) -> tuple[int, int]:
    """Version and rows; reads every file."""
    table = DeltaTable(uri)
    return table.version(), table.to_pyarrow_table().num_rows


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs; the limit on file size below tests the same without it")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_table_as_it_was_and_the_next_run_lands_the_batch(data_room, small_disk: Path) -> None:
    data_room.pipeline(query=BIG.format(2000))
    platform = Platform(pipelines_dir=data_room.platform.pipelines_dir, store=str(small_disk))
    uri = platform.table("demo", "data")

    def ingest() -> StepResult:
        return run_step(data_room.request("ingest"), platform)

    data_room.write("2024-01", 3)
    assert ingest().verdict is Verdict.PASS
    before = content(uri)
    data_room.write("2024-02", 30)
    result = ingest()
    assert result.verdict is Verdict.ERROR
    assert result.failure is not None
    assert result.failure.type == "PlatformError"
    assert "the store is full" in result.failure.message
    assert uri in result.failure.message
    assert "free space" in result.failure.message
    assert content(uri) == before
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert ingest().outputs["landed"] == ["2024-02"]
    assert content(uri) == (1, 66_000)


def test_a_limit_on_the_size_of_files_does_the_same(data_room) -> None:
    data_room.pipeline(query=BIG.format(2000))
    data_room.write("2024-01", 3)
    data_room.ingest()
    before = content(data_room.table)
    data_room.write("2024-02", 30)
    limited = "import resource, runpy, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000)); runpy.run_module('perennial_steps', run_name='__main__')"
    environment = {
        **os.environ,
        **data_room.platform.to_environment(),
        "PERENNIAL_STEP_REQUEST": data_room.request("ingest").model_dump_json(),
        "PERENNIAL_STEP_RESULT_FILE": str(data_room.root / "result.json"),
    }
    done = subprocess.run(
        [sys.executable, "-c", limited], env=environment, check=False, capture_output=True, timeout=120
    )
    result = parse_result((data_room.root / "result.json").read_text())
    assert done.returncode == Verdict.ERROR.exit_code
    assert result.failure is not None
    assert "the store is full" in result.failure.message
    assert content(data_room.table) == before


def test_kill_9_at_any_point_leaves_a_version_that_can_be_read_and_the_next_run_completes_it(data_room) -> None:
    data_room.pipeline(query=BIG.format(500))
    for month in range(1, 9):
        data_room.write(f"2024-{month:02d}", 20)
    chance = random.Random(5)
    seen: set[int] = set()
    for landings in range(5):
        process = data_room.start(data_room.request("ingest"))
        assert process.stderr is not None
        wanted = ["query, redaction", *["landed 2024"] * chance.choice([0, 1])]
        while wanted and (line := process.stderr.readline()):
            if wanted[0] in line:
                wanted.pop(0)
        time.sleep(chance.random() * 0.3 * (landings > 0))
        process.kill()
        process.communicate()
        if (Path(data_room.table) / "_delta_log" / f"{0:020}.json").exists():
            version, rows = content(data_room.table)
            assert rows == (version + 1) * 10_000  # each version is one whole month more, never a part of one
            seen.add(version)
    assert seen, "no run lived long enough to land a month"
    result = data_room.ingest()
    assert result.verdict is Verdict.PASS, result.failure
    assert content(data_room.table) == (7, 80_000)


def test_sigterm_while_a_batch_lands_ends_with_a_result(data_room) -> None:
    data_room.pipeline(query=BIG.format(5000))
    for month in range(1, 7):
        data_room.write(f"2024-{month:02d}", 20)
    process = data_room.start(data_room.request("ingest"))
    assert process.stderr is not None
    while "source events" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    result = parse_result((data_room.root / "result.json").read_text())
    assert process.returncode == Verdict.ERROR.exit_code
    assert "terminated" in result.summary


def test_ingests_at_the_same_time_land_each_month_once(data_room) -> None:
    data_room.pipeline()
    for month in range(1, 7):
        data_room.write(f"2024-{month:02d}", 20)
    results: list[StepResult] = []
    threads = [threading.Thread(target=lambda: results.append(data_room.ingest())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.verdict for result in results] == [Verdict.PASS] * 3, results
    assert content(data_room.table) == (5, 120)
    assert sorted(month for result in results for month in result.outputs["landed"]) == [
        f"2024-{m:02d}" for m in range(1, 7)
    ]
    assert {result.outputs["data_version"] for result in results} == {5}


def test_what_another_ingest_lands_while_the_table_is_read_has_its_own_version(
    data_room, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_room.pipeline()
    data_room.write("2024-01", 3)
    data_room.ingest()
    data_room.write("2024-02", 4)
    real, others = DeltaTable.history, [data_room.ingest]

    def history(table: DeltaTable, limit: int | None = None) -> list:
        while others:
            assert others.pop()().outputs["data_version"] == 1
        return real(table, limit)

    monkeypatch.setattr(DeltaTable, "history", history)
    state = read_state(data_room.table)
    assert state.version == 1
    assert state.ledger is not None
    assert sorted(state.ledger.partitions) == ["2024-01", "2024-02"]


def test_a_table_that_another_ingest_makes_meanwhile_is_not_overwritten(
    data_room, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial_steps import table

    data_room.pipeline()
    data_room.write("2024-01", 3)
    data_room.write("2024-02", 4)
    real, calls = table.commit, []

    def commit(state, rows, ledger, partition) -> None:
        calls.append(partition)
        if len(calls) == 1:
            assert data_room.ingest().verdict is Verdict.PASS
        real(state, rows, ledger, partition)

    monkeypatch.setattr(table, "commit", commit)
    result = data_room.ingest()
    assert (result.outputs["landed"], content(data_room.table)) == ([], (1, 7))


def test_a_commit_of_another_process_in_between_is_seen_and_not_undone(
    data_room, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial_steps import ingest_landing, table

    data_room.pipeline()
    data_room.write("2024-01", 3)
    data_room.ingest()
    data_room.write("2024-02", 4)
    real, calls = table.commit, []

    def commit(state, rows, ledger, partition) -> None:
        calls.append(partition)
        if len(calls) == 1:  # what another ingest would do between our reading the state and our commit
            DeltaTable(data_room.table).delete("x = 0.5")
        real(state, rows, ledger, partition)

    monkeypatch.setattr(table, "commit", commit)
    result = data_room.ingest()
    assert result.verdict is Verdict.PASS, result.failure
    assert ingest_landing.ATTEMPTS > 1
    assert calls == ["2024-02", "2024-01", "2024-02"]
    assert content(data_room.table) == (3, 7)
