"""What happened to a pipeline, from the parts that know: the ledger, Prometheus, Airflow and the registry.

`story` holds what is known, `choose` and `bins` are pure, `queries` are the words that Prometheus is asked in, `gather` asks, `words` makes
sentences and `screen` shows them on a terminal.
"""
