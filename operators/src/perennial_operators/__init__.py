"""Airflow operators, task groups and the DAG factory."""
