"""Airflow operators, task groups and the DAG factory.

The DAG file of the platform is one line: `globals().update(build_dags(folder))`. For a DAG of one's own:

    pipeline = the_pipeline(folder)
    with pipeline_dag(pipeline):
        chain(step(pipeline, "ingest"), ..., my_task(), step(pipeline, "evaluate"), rollout_group(pipeline))
"""

from perennial_operators.factory import build_dags, pipeline_dag, report_broken, the_pipeline
from perennial_operators.rollouts import rollout_group
from perennial_operators.tasks import approval_group, data_group, step, training_group

__all__ = [
    "approval_group",
    "build_dags",
    "data_group",
    "pipeline_dag",
    "report_broken",
    "rollout_group",
    "step",
    "the_pipeline",
    "training_group",
]
