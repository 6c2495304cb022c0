"""A fitted model, measured and wrapped for serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial_features.bundle import Bundle, Scores, Smoke, smoke_of, smoke_places
from perennial_features.code import FeatureCode
from perennial_features.holdout import Holdout
from perennial_features.reference import Reference
from perennial_spec.errors import FeatureError, ModelError
from perennial_spec.pipeline import PipelineSpec
from perennial_steps.evaluation.metrics import measure
from perennial_steps.training.attribution import attribution
from perennial_steps.training.fit import Fitted
from perennial_steps.training.prepare import Prepared


@dataclass(frozen=True)
class Trained:
    """A model that is fitted, measured and not yet written anywhere."""

    prepared: Prepared
    fitted: Fitted
    bundle: Bundle
    metrics: dict[str, float]
    """By `part/metric`."""
    scores: Scores
    """float64[rows of the window]."""

    @property
    def importance(self) -> dict[str, float]:
        """Total gain by feature; features that no tree uses are left out."""
        gains: dict[str, float] = self.fitted.booster.get_score(importance_type="total_gain")
        return gains


def measured(
    spec: PipelineSpec, code: FeatureCode, prepared: Prepared, fitted: Fitted, meta: dict[str, Any]
) -> Trained:
    """Metrics on validation and holdout, reference histograms, and the bundle.

    Raises:
        FeatureError: the features of a row depend on the rows around it.
    """
    label, parts = prepared.dataset.label, prepared.parts
    answers = fitted.booster.inplace_predict(prepared.encoded.matrix)
    scores: Scores = answers.astype(np.float64)
    held = parts.holdout.rows
    metrics = {
        f"{part.name}/{name}": value
        for part in (parts.validation, parts.holdout)
        for name, value in measure(
            spec.model.kind, label[part.rows], scores[part.rows], prepared.dataset.group_of(part.rows)
        ).items()
    }
    # Predictions on rows that the model was fitted to are surer than those it will make: the reference is of the others.
    unfitted = slice(parts.validation.rows.start, None)
    reference = Reference.of(prepared.encoded, prepared.schema, scores[unfitted])
    attributed = attribution(fitted.booster, prepared.schema, prepared.encoded.matrix[unfitted])
    bundle = Bundle(
        kind=spec.model.kind,
        schema=prepared.schema,
        reference=reference.model_copy(update={"attribution": attributed}),
        code=code,
        booster=fitted.booster,
        spec=spec.model_dump(mode="json"),
        meta=meta,
        smoke=Smoke(smoke_of(prepared.inputs), scores[smoke_places(len(scores))].tolist()),
        holdout=Holdout.of(prepared.encoded.matrix[held], answers[held]),
    )
    _need_row_wise(bundle)
    return Trained(prepared, fitted, bundle, metrics, scores)


def _need_row_wise(bundle: Bundle) -> None:
    """Raises:
    FeatureError: a few rows by themselves get other predictions than within the whole: serving would not do what training did.
    """
    try:
        bundle.verify()
    except ModelError as error:
        raise FeatureError(
            f"the features of a row depend on the rows around it: {error.what}",
            where=bundle.code.where,
            expected="the same features for a row whether it comes alone or in a million",
            next="move means, ranks and counts over rows into the query, where they are columns",
        ) from error
