"""The model card: what a person needs to know of a version, on one page (after Mitchell et al., "Model Cards", 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perennial_features.schema import FeatureSchema
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.step import Reason
from perennial_spec.units import format_duration
from perennial_steps.training.dataset import Parts

CARD = "model_card.md"
"""Its name among the artifacts of the training's run."""


@dataclass(frozen=True)
class Facts:
    """What the card is filled with."""

    run_key: str
    reason: Reason
    data_uri: str
    data_version: int
    code_version: str
    lock_digest: str
    parts: Parts
    schema: FeatureSchema
    metrics: Mapping[str, float]
    """By `part/metric`."""
    importance: Mapping[str, float]
    """Total gain by feature."""
    rounds: int


def model_card(spec: PipelineSpec, facts: Facts) -> str:
    """Markdown."""
    sections = [
        _head(spec, facts),
        _purpose(spec),
        _data(spec, facts),
        _figures(facts),
        _features(facts),
        _lifetime(spec),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(spec: PipelineSpec, facts: Facts) -> str:
    return "\n".join(
        [
            f"# {spec.name}",
            "",
            f"- Owner: {spec.owner.team} ({spec.owner.contact})",
            f"- Model: {spec.model.kind}, {facts.rounds} rounds",
            f"- Why it was trained: {facts.reason.summary} ({facts.reason.kind})",
            f"- Run: {facts.run_key}",
            f"- Code: {facts.code_version}; environment: {facts.lock_digest[:12]}",
        ]
    )


def _purpose(spec: PipelineSpec) -> str:
    if spec.canvas is None:
        return "## Purpose\n\nThe spec has no canvas: not fit for production."
    fields = spec.canvas.model_dump().items()
    return "## Purpose\n\n" + "\n".join(f"- **{name.replace('_', ' ').capitalize()}**: {text}" for name, text in fields)


def _data(spec: PipelineSpec, facts: Facts) -> str:
    parts = (facts.parts.train, facts.parts.validation, facts.parts.holdout)
    rows = [f"| {part.name} | {part.count:,} | {part.first} | {part.last} |" for part in parts]
    group = spec.model.group
    hidden = ", ".join([*spec.data.exclude, *spec.data.sensitive, *([group] if group else [])]) or "none"
    lists = f" Rows are ranked within each `{group}`; no part has a piece of a list." if group else ""
    return "\n".join(
        [
            "## Data",
            "",
            f"{facts.data_uri} version {facts.data_version}; label `{spec.data.label.column}`, "
            f"known {format_duration(spec.data.label.arrives_after)} after `{spec.data.timestamp}`. "
            f"Columns kept from the model: {hidden}.{lists}",
            "",
            "| part | rows | from | to |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _figures(facts: Facts) -> str:
    rows = [f"| {name} | {value:.4f} |" for name, value in facts.metrics.items()]
    return "\n".join(["## Figures", "", "| metric | value |", "|---|---|", *rows])


def _features(facts: Facts) -> str:
    total = sum(facts.importance.values()) or 1.0
    rows = [
        f"| {feature.name} | {feature.kind} | {facts.importance.get(feature.name, 0.0) / total:.1%} |"
        for feature in sorted(facts.schema.features, key=lambda each: -facts.importance.get(each.name, 0.0))
    ]
    inputs = ", ".join(f"`{column.name}`" for column in facts.schema.inputs)
    return "\n".join(
        ["## Features", "", f"Made from {inputs}.", "", "| feature | kind | share of gain |", "|---|---|---|", *rows]
    )


def _lifetime(spec: PipelineSpec) -> str:
    review, retire = format_duration(spec.lifetime.review_every), format_duration(spec.lifetime.retire_after)
    return f"## Lifetime\n\nReviewed every {review}, retired after {retire}."
