"""Kubernetes manifests as pure functions of the specification."""
