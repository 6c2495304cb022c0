"""What the tests of manifests share."""

from __future__ import annotations

from typing import Any

import pytest

from perennial_k8s.settings import PodSettings
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.step import Reason, StepRequest


@pytest.fixture
def spec_values() -> dict[str, Any]:
    return {
        "apiVersion": "perennial/v1",
        "name": "churn",
        "owner": {"team": "growth", "contact": "growth@example.com"},
        "data": {
            "sources": {"customers": "/lake/customers/*.parquet"},
            "timestamp": "seen_at",
            "entity": "customer_id",
            "label": {"column": "left"},
        },
        "model": {"kind": "xgboost.classifier"},
        "evaluation": {"metric": "roc_auc", "gates": [{"metric": "roc_auc", "min": 0.7}]},
        "resources": {"train": {"cpu": 1.5, "memory": "4Gi", "timeout": "30m", "retries": 2}},
    }


@pytest.fixture
def spec(spec_values: dict[str, Any]) -> PipelineSpec:
    return PipelineSpec.model_validate(spec_values)


@pytest.fixture
def request_of_train() -> StepRequest:
    return StepRequest(
        pipeline="churn",
        step="train",
        run_key="manual__2026-11-01T10:00:00+00:00",
        spec_digest="ab" * 32,
        reason=Reason(kind="person", summary="new feature"),
        inputs={"ingest": {"data_uri": "s3://store/churn/data", "data_version": 3}},
    )


@pytest.fixture
def settings() -> PodSettings:
    return PodSettings.model_validate(
        {
            "image": "registry.example.com/perennial-steps@sha256:" + "0" * 64,
            "namespace": "growth",
            "environment": {"PERENNIAL_STORE": "s3://store", "MLFLOW_TRACKING_URI": "http://mlflow:5000"},
            "secret_environment": {"AWS_SECRET_ACCESS_KEY": {"secret": "store", "key": "secret-key"}},
            "mounts": [{"path": "/opt/perennial/pipelines", "config_map": "pipelines"}],
        }
    )
