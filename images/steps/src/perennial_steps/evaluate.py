"""The evaluation step: challenger and champion on the same holdout, and the gates.

The holdout is the newest part of the version of the data that the challenger was trained on; neither model has seen it. A challenger that
passes gets the alias `challenger`. It is judged once in a run, and again when another model has become champion since. The outcome is
written to the version last, so that a killed attempt is done again and a finished one is not.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial_features.bundle import Bundle, Scores
from perennial_registry import verdicts
from perennial_registry.registry import ModelVersion, Registry
from perennial_spec import names
from perennial_spec.errors import FeatureError, ModelError, RequestError
from perennial_spec.model import ChampionGate
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.step import Verdict
from perennial_steps.context import Outcome, StepContext
from perennial_steps.evaluation.bootstrap import Gain, paired_bootstrap
from perennial_steps.evaluation.gates import Challenger, judge
from perennial_steps.evaluation.metrics import measure
from perennial_steps.evaluation.report import MAX_TAG, Evaluation, write_files
from perennial_steps.progress import phase
from perennial_steps.training.card import CARD
from perennial_steps.training.dataset import Dataset, Part, assemble, divide
from perennial_steps.training.table import read_window
from perennial_steps.training.tracking import Tracking, TrackingRest

log = logging.getLogger(__name__)

TAG_OUTCOME = "perennial.evaluate_outcome"
"""On the model version: what the step returned, with the run key that it returned it to."""
CONFIDENCE = 0.95
"""Of the gain's interval when no gate names one."""


@dataclass(frozen=True)
class Candidate:
    """A model version, and its answers to the holdout."""

    version: str
    score: Scores


@dataclass(frozen=True)
class Holdout:
    """The rows that models are judged on."""

    dataset: Dataset
    part: Part

    def column(self, name: str) -> Any:
        return self.dataset.column(name)[self.part.rows]

    @property
    def label(self) -> Scores:
        return self.dataset.label[self.part.rows]

    @property
    def group(self) -> Any:
        """int64[rows], the lists of a ranker; or None."""
        return self.dataset.group_of(self.part.rows)

    def scores(self, bundle: Bundle) -> Scores:
        """float64[rows]: what a model answers, by way of its own schema as in service."""
        inputs = {name: values[self.part.rows] for name, values in self.dataset.inputs.items()}
        return bundle.predict(bundle.columns(inputs, max_rows=self.part.count))


def run(context: StepContext) -> Outcome:
    """Judge the challenger.

    Raises:
        ModelError: challenger or champion cannot answer the holdout.
        BatchError: the holdout cannot be judged on.
        PlatformError, RegistryError: the store or MLflow does not answer.
    """
    name = context.pipeline.name
    url = context.platform.need("mlflow_url")
    with Registry(url) as registry, tempfile.TemporaryDirectory(prefix="perennial-evaluate-") as folder:
        version = registry.get(name, str(context.input("train", "model_version")))
        champion = registry.champion(name)
        if done := _done(version, champion, context.request.run_key):
            return done
        if champion is not None and champion.version == version.version:
            champion = None  # judged again by hand after its promotion: it cannot gain on itself
        holdout = read_holdout(context)
        own = _scored(registry, version, holdout, Path(folder))
        other = _champion_scored(registry, champion, holdout, Path(folder), context.pipeline.spec)
        with phase(log, "judged"):
            evaluation = evaluate(context.pipeline.spec, holdout, own, other)
        scores = {f"challenger, version {own.version}": own.score}
        if other is not None:
            scores[f"champion, version {other.version}"] = other.score
        files = Path(folder) / "out"
        kind = context.pipeline.spec.model.kind
        write_files(files / "evaluation", evaluation, kind, label=holdout.label, scores=scores, group=holdout.group)
        return _record(registry, version, evaluation, context, files)


def read_holdout(context: StepContext) -> Holdout:
    """The holdout of the version of the data that the challenger was trained on."""
    spec = context.pipeline.spec
    uri, version = str(context.input("ingest", "data_uri")), int(context.input("ingest", "data_version"))
    with phase(log, f"read {uri} version {version}"):
        table = read_window(uri, version, spec.data, spec.model.group)
        dataset = assemble(table, spec.data, spec.model.kind, spec.model.group)
    return Holdout(dataset, divide(dataset, spec.model.split, spec.model.kind).holdout)


def evaluate(spec: PipelineSpec, holdout: Holdout, challenger: Candidate, champion: Candidate | None) -> Evaluation:
    """Figures, gain and gates; pure."""
    metric, kind, label, group = spec.evaluation.metric, spec.model.kind, holdout.label, holdout.group
    figures = {"challenger": measure(kind, label, challenger.score, group)}
    gain: Gain | None = None
    if champion is not None:
        figures["champion"] = measure(kind, label, champion.score, group)
        gate = next((gate for gate in spec.evaluation.gates if isinstance(gate, ChampionGate)), None)
        confidence = gate.confidence if gate else CONFIDENCE
        gain = paired_bootstrap(metric, label, challenger.score, champion.score, confidence=confidence, group=group)
    judged = Challenger(figures["challenger"], label, challenger.score, holdout.column, gain, group)
    judgements = tuple(judge(gate, judged, metric) for gate in spec.evaluation.gates)
    other = champion.version if champion else None
    return Evaluation(challenger.version, other, metric, holdout.part, figures, gain, judgements)


def _scored(registry: Registry, version: ModelVersion, holdout: Holdout, folder: Path) -> Candidate:
    with phase(log, f"scored version {version.version} on {holdout.part.count:,} rows"):
        bundle = Bundle.load(
            registry.download_bundle(version.name, version.version, folder), threads=os.cpu_count() or 1
        )
        return Candidate(version.version, holdout.scores(bundle))


def _champion_scored(
    registry: Registry, champion: ModelVersion | None, holdout: Holdout, folder: Path, spec: PipelineSpec
) -> Candidate | None:
    """None when there is no champion; or when it cannot answer and no gate asks for it.

    Raises:
        ModelError: it cannot answer, and a gate compares with it.
    """
    if champion is None:
        return None
    try:
        return _scored(registry, champion, holdout, folder)
    except (ModelError, RequestError, FeatureError) as error:
        problem = ModelError(
            f"the champion, version {champion.version}, cannot be compared with: {error}",
            where=f"model {champion.name!r}",
            expected="a champion that answers the challenger's holdout",
            next="bring back what it needs, or take its alias away in MLflow: the challenger then passes without a comparison",
        )
        if any(isinstance(gate, ChampionGate) for gate in spec.evaluation.gates):
            raise problem from error
        log.warning("%s", problem)
        return None


def _record(
    registry: Registry, version: ModelVersion, evaluation: Evaluation, context: StepContext, files: Path
) -> Outcome:
    """Write the evaluation down: run, gates, verdict, alias, and last of all that it is done."""
    rest = TrackingRest(context.platform.need("mlflow_url"))
    try:
        with phase(log, "logged to MLflow"):
            tracking = Tracking(rest, version.name)
            run_of_version = tracking.get(version.run_id)
            tracking.upload(run_of_version, files)
            tracking.log(run_of_version, metrics=evaluation.metrics())
            card = run_of_version.page(context.platform.need("mlflow_url"), CARD)
    finally:
        rest.close()
    verdict = verdicts.PASSED if evaluation.passed else verdicts.REJECTED
    registry.tag(version.name, version.version, names.TAG_GATES, json.dumps(evaluation.gates(MAX_TAG)))
    if version.tags.get(names.TAG_VERDICT, verdicts.REGISTERED) in {
        verdicts.REGISTERED,
        verdicts.PASSED,
        verdicts.REJECTED,
    }:
        registry.tag(version.name, version.version, names.TAG_VERDICT, verdict)
        if evaluation.passed:
            registry.set_alias(version.name, names.ALIAS_CHALLENGER, version.version)
    # After the verdict: who reads both in between sees a judgement that is out of date, and asks for this one.
    registry.tag(version.name, version.version, names.TAG_JUDGED_AGAINST, evaluation.champion or "")
    outcome = Outcome(
        summary=evaluation.summary,
        outputs={**evaluation.outputs(), "card": card},
        metrics=evaluation.headline(),
        verdict=Verdict.PASS if evaluation.passed else Verdict.FAIL,
        failure=evaluation.failure,
    )
    registry.tag(version.name, version.version, TAG_OUTCOME, _to_json(outcome, context.request.run_key))
    return outcome


def _to_json(outcome: Outcome, run_key: str) -> str:
    return json.dumps(
        {
            "run_key": run_key,
            "summary": outcome.summary,
            "outputs": outcome.outputs,
            "metrics": outcome.metrics,
            "verdict": outcome.verdict,
            "failure": outcome.failure,
        }
    )


def _done(version: ModelVersion, champion: ModelVersion | None, run_key: str) -> Outcome | None:
    """The outcome of an earlier attempt of the same run against the same champion, or None."""
    found = json.loads(version.tags.get(TAG_OUTCOME, "{}"))
    if found.pop("run_key", None) != run_key:
        return None
    current, judged = champion.version if champion else "", found["outputs"]["champion_version"] or ""
    if current not in {version.version, judged} or version.tags.get(names.TAG_JUDGED_AGAINST, judged) != judged:
        return None
    log.info("version %s was judged in this run already: nothing to do", version.version)
    return Outcome(**{**found, "verdict": Verdict(found["verdict"])})
