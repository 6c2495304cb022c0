"""The model registry as Perennial uses MLflow's, over its REST API."""
