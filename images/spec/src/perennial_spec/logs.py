"""The Delta tables that model servers append to: predictions and labels, which the quality exporter joins, and rewards.

`Platform.table(pipeline, PREDICTIONS)` and `Platform.table(pipeline, LABELS)` are their places. Types are Arrow's names: `string`,
`double`, `bool`, and `timestamp[us, UTC]` (Delta's `timestamp`). Rows come in the order in which one server wrote them; several servers
interleave. A table exists only once its first row was written: a reader takes a missing table for an empty one.
"""

from __future__ import annotations

PREDICTIONS = "predictions"
LABELS = "labels"
REWARDS = "rewards"

PREDICTION_ID = "prediction_id"
ENTITY = "entity"
VERSION = "version"
SCORE = "score"
SHADOW = "shadow"
AT = "at"
INPUTS = "inputs"
LABEL = "label"
REWARD = "reward"

PREDICTION_COLUMNS: dict[str, str] = {
    PREDICTION_ID: "string",  # unique per row that was answered; a shadow's row repeats the id of the answer that it shadows
    ENTITY: "string",  # the spec's data.entity as text; null when the request did not carry it
    VERSION: "string",  # the model version in the registry that made the score
    SCORE: "double",  # probability of the positive class, or the regressor's value; null for a model that answers with text
    SHADOW: "bool",  # true: made beside the answer, and never sent to the client
    AT: "timestamp[us, UTC]",  # when the server answered
    INPUTS: "string",  # JSON object of the model's input columns and the spec's data.timestamp when sent; nothing sensitive or redacted
}
"""Column to type, in order. The same entity may be asked for more than once: the newest `at` is the current answer."""

LABEL_COLUMNS: dict[str, str] = {
    ENTITY: "string",  # the spec's data.entity as text; null when the label names its prediction
    LABEL: "double",  # what came true: 0 or 1 for a classifier
    AT: "timestamp[us, UTC]",  # when the label arrived at the server, unless the client said otherwise
    PREDICTION_ID: "string",  # the one prediction that it is of; null, or not there in an older table, when it is its entity's
}
"""Column to type, in order. A label may be corrected: the newest `at` of an entity, or of a prediction, wins.

An entity's label is for the newest prediction of each version. A prediction's own label is for that one, whatever its entity's says.
"""

REWARD_COLUMNS: dict[str, str] = {
    PREDICTION_ID: "string",  # the prediction that the reward came of
    VERSION: "string",  # the version that made it, read from the id; null when no version that is loaded did
    REWARD: "double",
    AT: "timestamp[us, UTC]",  # when the reward arrived at the server, unless the client said otherwise
}
"""Column to type, in order. What a bandit's arms are made from."""

ROW_COLUMNS: dict[str, dict[str, str]] = {LABELS: LABEL_COLUMNS, REWARDS: REWARD_COLUMNS}
"""The tables of what clients send later."""
