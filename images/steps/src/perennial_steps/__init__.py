"""The steps of a pipeline: ingest, validate, train, evaluate, deploy, analyse, promote, roll back."""
