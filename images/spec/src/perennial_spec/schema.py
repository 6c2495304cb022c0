"""The JSON Schema of `pipeline.yaml`, for editors and for other languages."""

from __future__ import annotations

from typing import Any

from perennial_spec.pipeline import PipelineSpec


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `pipeline.yaml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **PipelineSpec.model_json_schema(),
        "title": "Perennial pipeline",
    }
