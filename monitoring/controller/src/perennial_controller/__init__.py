"""The controller: alerts to ledger to policy to Airflow; the quality exporter beside it."""
