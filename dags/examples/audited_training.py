"""A DAG of one's own: Airflow audits the trained model before it is evaluated. To use it, copy it into `dags/`."""

from pathlib import Path
from typing import Any

from airflow.sdk import chain, task
from airflow.sdk.exceptions import AirflowFailException

from perennial_operators import data_group, pipeline_dag, rollout_group, step, the_pipeline

pipelines = next(p / "pipelines" for p in Path(__file__).parents if (p / "pipelines").is_dir())
pipeline = the_pipeline(pipelines / "flight-delays")


@task
def audit(trained: Any) -> None:
    if trained["train_rows"] < 10_000:
        raise AirflowFailException(f"version {trained['model_version']} saw only {trained['train_rows']} rows")


with pipeline_dag(pipeline, dag_id="flight-delays-audited"):
    train = step(pipeline, "train")
    chain(data_group(pipeline), train, audit(train.output), step(pipeline, "evaluate"), rollout_group(pipeline))
