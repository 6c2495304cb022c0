from __future__ import annotations

import json

from perennial_spec.schema import json_schema
from perennial_spec.source import valid_keys


def test_the_schema_describes_every_part_and_forbids_unknown_words() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert {"data", "model", "evaluation", "deployment"} <= set(schema["properties"])
    assert "Delta" in json.dumps(schema["$defs"]["Data"])


def test_valid_keys_are_found_through_lists_maps_and_unions() -> None:
    from perennial_spec.pipeline import PipelineSpec

    assert "arrives_after" in valid_keys(PipelineSpec, ("data", "label"))
    assert "memory" in valid_keys(PipelineSpec, ("resources", "train"))
    assert "min_gain" in valid_keys(PipelineSpec, ("evaluation", "gates", 0, "gate:against"))
