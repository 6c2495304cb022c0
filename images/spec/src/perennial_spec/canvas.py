"""The ML canvas: what a model is for, in words. `perennial check` warns while a pipeline has none.

After the "Machine Learning Canvas" (Dorard, 2015), with the governance fields that audits ask for.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from perennial_spec.base import Model

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Canvas(Model):
    """One short paragraph per field; every field is required, so that none is forgotten."""

    background: Text
    """What is going on, and for whom."""
    value_proposition: Text
    """What gets better when the model is right."""
    objectives: Text
    """What is predicted, when, and how good it must be to be worth having."""
    data_collection: Text
    """Where inputs and labels come from, and how late the labels are."""
    data_governance: Text
    """Who owns the data, what is personal, what must never reach a model."""
    modelling: Text
    """The kind of model, and why."""
    metrics: Text
    """The offline and online metrics, and how they relate to the value."""
    model_governance: Text
    """Who may promote, roll back, retire."""
    inference: Text
    """Who asks for predictions, how often, how fast."""
    decision: Text
    """What is done with a prediction, and by whom."""
    feedback: Text
    """How the world answers, and whether the model changes what it measures."""
    lifetime: Text
    """How long the model is expected to hold, and when it is reviewed."""
