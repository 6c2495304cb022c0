"""What Airflow shows about a pipeline, made from its specification."""

from __future__ import annotations

from collections.abc import Iterator

from perennial_spec.canvas import Canvas
from perennial_spec.experiment import OF_STRATEGY
from perennial_spec.load import Pipeline
from perennial_spec.model import ChampionGate, MetricGate, SliceGate
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.units import format_duration, format_share

_EVIDENCE = """\
{%- set found = ti.xcom_pull(task_ids="evaluate", key="result", map_indexes=-1) or {} -%}
{%- set outputs = found.get("outputs", {}) -%}
**Version {{ outputs.get("model_version", "?") }}** against champion **{{ outputs.get("champion_version") or "none" }}**.
{{ found.get("summary", "") }}

| gate | value | bound | | note |
|---|---|---|---|---|
{% for gate in outputs.get("gates", []) -%}
| {{ gate.gate }} | {{ "-" if gate.value is none else "%.4g" | format(gate.value) }} | {{ gate.bound }} |
{{- " passed | " if gate.passed else " FAILED | " }}{{ gate.get("note") or "" }} |
{% endfor %}
{%- if outputs.get("gain_high") is not none %}
Gain over the champion: {{ "%.4g (%.4g to %.4g)" | format(outputs.gain, outputs.gain_low, outputs.gain_high) }}.
{% endif -%}
{%- if outputs.get("slices") %}
| worst slices | | value | rows |
|---|---|---|---|
{% for slice in outputs.slices -%}
| {{ slice.gate }} | {{ slice.slice }} | {{ "%.4g" | format(slice.value) }} | {{ slice.rows }} |
{% endfor %}
{%- endif %}
{%- set work = namespace(total=0.0, steps=[]) -%}
{%- for step, cpus in CPUS.items() -%}
{%- set done = ti.xcom_pull(task_ids=step, key="result", map_indexes=-1) or {} -%}
{%- if done.get("seconds") is not none -%}
{%- set work.total = work.total + done.seconds * cpus -%}
{%- set work.steps = work.steps + ["%s %.1f s on %g CPU" | format(step, done.seconds, cpus)] -%}
{%- endif -%}
{%- endfor -%}
{%- if work.steps %}
Cost so far: at most {{ "%.1f" | format(work.total / 60) }} CPU minutes ({{ work.steps | join(", ") }}).
{% endif -%}
{%- if outputs.get("card") %}
[Model card]({{ outputs.card }}): data, features, figures and purpose.
{% endif -%}
"""


def evidence(spec: PipelineSpec) -> str:
    """Jinja over the run: what the approver sees."""
    cpus = {step: spec.step_resources(step).cpu for step in ("ingest", "validate", "train", "evaluate")}
    return f"{{%- set CPUS = {cpus!r} -%}}\n{_EVIDENCE}"


def describe(spec: PipelineSpec) -> str:
    """One line for the list of DAGs."""
    if spec.canvas:
        return spec.canvas.value_proposition.split("\n")[0][:200]
    return f"Continuous training of {spec.name} ({spec.model.kind})"


def document(pipeline: Pipeline) -> str:
    """The DAG's page, as Markdown: owner, gates, rollout, what starts a run, and the canvas."""
    spec = pipeline.spec
    return "\n\n".join(
        [
            f"# {spec.name}",
            describe(spec),
            f"**Owner** {spec.owner.team}, {spec.owner.contact}  \n**Model** `{spec.model.kind}`, features "
            f"`{spec.model.features}`  \n**Specification** `{pipeline.folder.name}/pipeline.yaml`, `{pipeline.digest[:12]}`",
            "## A challenger must pass\n\n" + "\n".join(f"- {line}" for line in _gates(spec)),
            "## Rollout\n\n" + _rollout(spec),
            "## A run starts\n\n" + "\n".join(f"- {line}" for line in _starts(spec)),
            *([_canvas(spec.canvas)] if spec.canvas else []),
        ]
    )


def _gates(spec: PipelineSpec) -> Iterator[str]:
    for gate in spec.evaluation.gates:
        if isinstance(gate, MetricGate):
            yield f"`{gate.metric}` {_bounds(gate.min, gate.max)}"
        elif isinstance(gate, ChampionGate):
            yield (
                f"gain in `{spec.evaluation.metric}` over the champion at least {gate.min_gain:g}, "
                f"at {format_share(gate.confidence)} confidence"
            )
        elif isinstance(gate, SliceGate):
            yield f"`{gate.metric}` {_bounds(gate.min, gate.max)} in each `{gate.slice}` of at least {gate.min_rows} rows"


def _bounds(low: float | None, high: float | None) -> str:
    parts = [f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high is not None else ""]
    return " and ".join(part for part in parts if part)


def _rollout(spec: PipelineSpec) -> str:
    deployment = spec.deployment
    shares = ", ".join(format_share(share) for share in deployment.rollout)
    asked = " A person approves first." if deployment.approval == "required" else ""
    bake = format_duration(deployment.bake)
    if deployment.strategy == "shadow":
        return f"A shadow for {bake}, to nobody, until what it says is compared; then all traffic.{asked}"
    if deployment.strategy == "blue_green":
        return f"All traffic at once when every server has loaded it, watched for {bake} while the champion stays loaded.{asked}"
    if len(deployment.rollout) == 1:
        return f"All traffic at once ({deployment.strategy}).{asked}"
    if deployment.strategy in OF_STRATEGY:
        longest = format_duration(deployment.experiment.max_duration)
        return (
            f"{shares} of the traffic, when an experiment of at most {longest} says so ({deployment.strategy}).{asked}"
        )
    return (
        f"{shares} of the traffic, each watched for {format_duration(deployment.bake)} ({deployment.strategy}).{asked}"
    )


def _starts(spec: PipelineSpec) -> Iterator[str]:
    retraining = spec.retraining
    if retraining.schedule:
        yield f"by schedule: `{retraining.schedule}`, UTC"
    if retraining.on:
        budget = f"{retraining.budget.runs} per {format_duration(retraining.budget.per)}"
        yield f"on {', '.join(retraining.on)}; at most one per {format_duration(retraining.cooldown)} and {budget}"
    yield f"by hand: `perennial run {spec.name}`"


def _canvas(canvas: Canvas) -> str:
    sections = [f"**{name.replace('_', ' ').capitalize()}.** {text}" for name, text in canvas.model_dump().items()]
    return "## Canvas\n\n" + "\n\n".join(sections)
