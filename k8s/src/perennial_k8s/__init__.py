"""Kubernetes manifests as pure functions of the specification: `step_pod` builds a pod, `ending_of` and `result_of` read how it ended."""
