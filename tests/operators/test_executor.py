from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
from airflow.executors.executor_loader import ExecutorLoader
kind, _ = ExecutorLoader.import_default_executor_cls()
executor = kind(parallelism=1)
needed = "airflow.sdk.execution_time.task_runner", "perennial_operators.local"
executor.start()
print(kind.__name__, [name in sys.modules for name in needed])
executor.end()
"""


def test_airflow_takes_the_executor_and_its_workers_start_warm() -> None:
    environment = {**os.environ, "AIRFLOW__CORE__EXECUTOR": "perennial_operators.executor.WarmLocalExecutor"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert "WarmLocalExecutor [True, True]" in done.stdout
