"""Broken pipelines as an import error on Airflow's home page; no DAG lives in this file, so none is hidden by the error."""

from pathlib import Path

from perennial_operators import report_broken

report_broken(Path(__file__).parent / "pipelines")
