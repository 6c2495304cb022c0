"""Writes docs/pipeline.md from the specification's own models, so that it cannot say anything else. `make render` calls it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from perennial_spec.schema import json_schema
from perennial_spec.units import format_duration

TARGET = Path(__file__).parent / "pipeline.md"

HEAD = """\
# The pipeline file

`dags/pipelines/<name>/pipeline.yaml` says everything about a pipeline once: the DAG factory, the steps, the model server, the
controller and the rules all read it. Unknown words are errors, so a typo is never silently ignored. Durations are written as
`20ms`, `10s`, `5m`, `6h`, `14d` or `2w`, shares as `10%`, memory as `4Gi`. Names in the second column link to their own table.

For an example that is used in earnest see [flight-delays](../dags/pipelines/flight-delays/pipeline.yaml). Editors complete and check
the file with the JSON Schema that `perennial schema` prints.

This page is written by `make render`.
"""

TAIL = """\
## What a request may send

The columns that `features.py` reads, by name and in any order, in any of the server's protocols. Their types are those of the data that the
version was trained on; what is plainly meant is converted, everything else is refused with the column, the row and what was expected.

| column in training | may be sent as | refused |
| --- | --- | --- |
| number | `12.5`, `12`, `"12.5"`, `" 1e3 "`, `true` as 1, `null` and `"NaN"` as missing | `"warm"`, `""`, `"1_000"`, `1e400`, `[1]` |
| integer | `12`, `12.0`, `"12"`, `null` as missing | `1.5`, `"12.0"`, `true`, `9223372036854775808` |
| boolean | `true`, `false`, `1`, `0`, `"true"`, `"False"`, `null` as missing | `2`, `"yes"`, `"1"` |
| text | `"JFK"`, `""`, `7` as `"7"`, `null` as missing | `1.5`, `true`, `["JFK"]` |
| timestamp | `"2013-06-01T07:15:00+02:00"`, `"2013-06-01 05:15"`, `"2013-06-01"`, `null` as missing | `1370063700`, `"yesterday"`, `true` |

- Timestamps are text in ISO 8601, in UTC where they name no offset. A number is none: nobody can tell seconds from milliseconds.
- A column may be left out if training saw missing values in it, and is then missing. Any value may be missing, and counts as drift where
  training saw none.
- A category that training did not see is missing to the model, and is counted as `other`, apart from `missing`, by drift.
- Columns that the model does not know are ignored, so a client may send more than one model needs.
- Integers and booleans of which some are missing reach `features.py` as float64 with NaN, in training as in serving.
- A row gets the same answer alone as among others: the server answers rows of different requests together.
"""


def render() -> str:
    """The whole page as Markdown."""
    schema = json_schema()
    parts = [HEAD, _table("pipeline.yaml", schema)]
    parts += [_table(name, schema["$defs"][name]) for name in _in_order(schema)]
    return "\n".join([*parts, TAIL])


def _in_order(schema: dict[str, Any]) -> list[str]:
    """Definitions in the order in which a reader meets them."""
    found: list[str] = []

    def visit(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                visit(item)
        elif isinstance(node, dict):
            name = str(node.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.append(name)
                visit(schema["$defs"][name].get("properties"))
            for value in node.values():
                visit(value)

    visit(schema["properties"])
    return found


def _table(name: str, schema: dict[str, Any]) -> str:
    lines = [
        f"## {name}",
        "",
        _flat(schema.get("description", "")),
        "",
        "| word | value | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    required = schema.get("required", [])
    for word, field in schema.get("properties", {}).items():
        default = "required" if word in required else f"`{_default(field.get('default'))}`"
        lines.append(f"| `{word}` | {_type(field)} | {default} | {_flat(field.get('description', ''))} |")
    return "\n".join([*lines, ""])


def _default(value: Any) -> str:
    if isinstance(value, dict):
        return "its own defaults" if value else "-"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "its own defaults"
    if isinstance(value, list):
        return ", ".join(_default(item) for item in value) or "-"
    if value is None:
        return "-"
    if isinstance(value, str) and value.startswith("P"):  # pydantic writes defaults of durations in ISO 8601
        return format_duration(TypeAdapter(timedelta).validate_python(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(field: dict[str, Any]) -> str:  # noqa: PLR0911 (one return per shape)
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type(option) for option in field[key] if option.get("type") != "null"))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}" if field.get("items") else "list"
    if field.get("type") == "object":
        return (
            f"map to {_type(field['additionalProperties'])}"
            if isinstance(field.get("additionalProperties"), dict)
            else "map"
        )
    examples = field.get("examples")
    return f"`{examples[0]}`" if examples else str(field.get("type", "any"))


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(render())
