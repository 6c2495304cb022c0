"""The contract between whoever runs a step and the step, kept by every step and by the process that runs it."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial_spec import step as contract
from perennial_spec.platform import Platform
from perennial_spec.step import MAX_RESULT_BYTES, STEPS, Reason, StepRequest, StepResult, Verdict, parse_result
from perennial_steps.runner import run_step

HEAVY = {
    "mlflow",
    "pandas",
    "great_expectations",
    "matplotlib",
    "sklearn",
    "optuna",
    "duckdb",
    "xgboost",
    "scipy",
    "deltalake",
}

SPEC = """
apiVersion: perennial/v1
name: demo
owner: {team: tests, contact: tests@example.com}
data:
  sources: {events: "${EVENTS}/*.csv"}
  timestamp: at
  entity: id
  label: {column: late}
  window: 2000d
  partition_by: [day]
expectations:
  - expect_column_values_to_be_between: {column: x, min_value: 0}
  - expect_column_values_to_be_between: {column: x, max_value: 1, severity: warn}
model: {kind: xgboost.classifier}
evaluation: {metric: roc_auc, gates: [{metric: roc_auc, min: 0.5}]}
"""


@dataclass(frozen=True)
class Bench:
    """One pipeline over a year of days."""

    root: Path

    @property
    def platform(self) -> Platform:
        return Platform(pipelines_dir=str(self.root / "pipelines"), store=str(self.root / "store"))

    def process(self, request: str | StepRequest, **environment: str) -> subprocess.CompletedProcess[str]:
        text = request if isinstance(request, str) else request.model_dump_json()
        (self.root / "request.json").write_text(text)
        (self.root / "result.json").unlink(missing_ok=True)
        own = {
            "PERENNIAL_STEP_REQUEST_FILE": str(self.root / "request.json"),
            "PERENNIAL_STEP_RESULT_FILE": str(self.root / "result.json"),
        }
        return subprocess.run(
            [sys.executable, "-m", "perennial_steps"],
            env={**os.environ, **self.platform.to_environment(), **own, **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def result(self) -> StepResult:
        return parse_result((self.root / "result.json").read_text())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    folder = tmp_path / "pipelines" / "demo"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(SPEC)
    (folder / "features.py").write_text("def features(columns):\n    return {'x': columns['x']}\n")
    start = datetime(2024, 1, 1)
    rows = [f"{n},{start + timedelta(hours=8 * n)},{n},{n % 2}" for n in range(300)]
    (tmp_path / "events.csv").write_text("\n".join(["id,at,x,late", *rows]) + "\n")
    monkeypatch.setenv("EVENTS", str(tmp_path))
    return Bench(tmp_path)


def request(step: str, **more: Any) -> StepRequest:
    reason = Reason(kind="person", summary="a test")
    return StepRequest.model_validate({"pipeline": "demo", "step": step, "run_key": "run-1", "reason": reason} | more)


def documented(step: str) -> set[str]:
    """The outputs that the contract names for a step."""
    line = next(line for line in str(contract.__doc__).splitlines() if line.startswith(f"    {step} "))
    flat = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\([^)]*\)", "", line.strip().removeprefix(step))
    return {word.split()[0] for word in flat.split(",")}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_a_module_with_one_function_and_is_imported_without_heavy_libraries(step: str) -> None:
    code = f"""import json, sys, inspect, perennial_steps.{step} as module
print(json.dumps([list(inspect.signature(module.run).parameters), sorted({HEAVY!r} & set(sys.modules))]))"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [["context"], []]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_a_docstring_for_its_errors(step: str) -> None:
    module = __import__(f"perennial_steps.{step}", fromlist=["run"])
    assert "Raises:" in (inspect.getdoc(module.run) or "")


def test_ingest_and_validate_give_the_outputs_that_the_contract_names(bench: Bench) -> None:
    ingest = run_step(request("ingest"), bench.platform)
    assert ingest.verdict is Verdict.PASS, ingest.failure
    assert set(ingest.outputs) == documented("ingest")
    validate = run_step(request("validate", inputs={"ingest": ingest.outputs}), bench.platform)
    assert validate.verdict is Verdict.PASS, validate.failure
    assert set(validate.outputs) == documented("validate")


def test_the_process_and_the_function_give_the_same_result(bench: Bench) -> None:
    run_step(request("ingest"), bench.platform)
    here = run_step(request("ingest"), bench.platform)
    done = bench.process(request("ingest"))
    assert done.returncode == 0
    assert done.stdout == ""  # logs are on stderr, and results in their file
    assert "nothing new" in done.stderr
    assert bench.result().model_copy(update={"seconds": 0}) == here.model_copy(update={"seconds": 0})


def test_a_result_with_a_hundred_partitions_fits_a_termination_message(bench: Bench) -> None:
    result = run_step(request("ingest"), bench.platform)
    assert len(result.to_message().encode()) <= MAX_RESULT_BYTES
    assert result.outputs["landed"][-1] == "and 60 more"
    assert result.outputs["data_version"] == 99


def test_a_step_run_twice_with_one_key_has_the_effect_of_one_run(bench: Bench) -> None:
    def state() -> list[tuple[str, bytes]]:
        files = sorted(path for path in (bench.root / "store").rglob("*") if path.is_file())
        return [(str(path), path.read_bytes()) for path in files]

    ingest = run_step(request("ingest"), bench.platform)
    validate = request("validate", inputs={"ingest": ingest.outputs})
    first = run_step(validate, bench.platform)
    before = state()
    assert run_step(request("ingest"), bench.platform).outputs["data_version"] == ingest.outputs["data_version"]
    assert run_step(validate, bench.platform).outputs == first.outputs
    assert state() == before


def test_a_step_without_the_outputs_of_the_step_before_says_which(bench: Bench) -> None:
    done = bench.process(request("validate"))
    result = bench.result()
    assert (done.returncode, result.verdict) == (10, Verdict.FAIL)
    assert result.failure is not None
    assert "step validate needs 'data_version' of step ingest" in result.failure.message
    assert "--input ingest.data_version=VALUE" in result.failure.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "step request: pipeline: Field required"),
        ('{"protocol": 2}', "protocol"),
        ("no JSON", "step request"),
        (request("ingest").model_dump_json().replace('"ingest"', '"digest"'), "step request: step"),
    ],
)
def test_a_request_that_breaks_the_contract_ends_with_the_code_of_an_error(bench: Bench, text: str, words: str) -> None:
    done = bench.process(text)
    assert done.returncode == Verdict.ERROR.exit_code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_result_that_cannot_be_written_is_told_and_is_an_error(bench: Bench) -> None:
    done = bench.process(request("ingest"), PERENNIAL_STEP_RESULT_FILE=str(bench.root / "no" / "such" / "folder"))
    assert done.returncode == Verdict.ERROR.exit_code
    assert "the result cannot be written" in done.stderr


def test_a_broken_spec_fails_the_step_with_file_and_line(bench: Bench) -> None:
    file = bench.root / "pipelines" / "demo" / "pipeline.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(SPEC) | {"modle": {}}, sort_keys=False))
    done = bench.process(request("ingest"))
    result = bench.result()
    assert (done.returncode, result.verdict) == (10, Verdict.FAIL)
    assert result.failure is not None
    assert re.search(
        r"pipeline\.yaml:\d+: modle is not a word of the specification; did you mean 'model'\?", result.failure.message
    )


def test_openmp_is_told_to_wait_passively_before_any_library_is_loaded(bench: Bench) -> None:
    (bench.root / "sitecustomize.py").write_text(
        "import sys, types\n"
        "module = types.ModuleType('perennial_steps.train')\n"
        "def run(context):\n"
        "    import os\n"
        "    from perennial_steps.context import Outcome\n"
        "    return Outcome(os.environ['OMP_WAIT_POLICY'], {'numpy': 'numpy' in sys.modules})\n"
        "module.run = run\n"
        "sys.modules['perennial_steps.train'] = module\n"
    )
    bench.process(request("train"), PYTHONPATH=str(bench.root))
    assert (bench.result().summary, bench.result().outputs) == ("PASSIVE", {"numpy": False})
