"""The model server: follows the registry, answers predictions, counts what Prometheus judges."""
