"""Training and serving see the same: every flight of a month, from the table and from the JSON of its request, bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from perennial_features.bundle import Bundle
from perennial_features.code import FeatureCode
from perennial_spec.load import Pipeline
from perennial_steps.training.dataset import assemble, divide
from perennial_steps.training.fit import Material, fit
from perennial_steps.training.model import Trained, measured
from perennial_steps.training.prepare import prepare
from perennial_steps.training.table import read_window

BATCH = 1000


@dataclass(frozen=True)
class Month:
    """A model trained on February, as it was trained and as it is served, and the requests for its flights."""

    trained: Trained
    served: Bundle
    requests: list[dict[str, Any]]
    """Parsed JSON, one per row of the training matrix; what the query gives, without the label and what is excluded."""

    @property
    def matrix(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.trained.prepared.encoded.matrix

    def columns(self, start: int, stop: int) -> dict[str, list[Any]]:
        """Some requests as one of several rows, column by column."""
        return {name: [row[name] for row in self.requests[start:stop]] for name in self.requests[0]}


def plain(value: Any) -> Any:
    """As a client of another language writes it."""
    return f"{value.isoformat()}Z" if isinstance(value, datetime) else value


@pytest.fixture(scope="module")
def month(rows: pa.Table, pipeline: Pipeline, code: FeatureCode, tmp_path_factory: pytest.TempPathFactory) -> Month:
    folder = tmp_path_factory.mktemp("parity")
    spec = pipeline.spec
    write_deltalake(folder / "table", rows)
    dataset = assemble(read_window(str(folder / "table"), 0, spec.data), spec.data, spec.model.kind)
    parts = divide(dataset, spec.model.split, spec.model.kind)
    prepared = prepare(dataset, parts, code)
    material = Material(prepared.encoded.matrix, dataset.label, prepared.schema, parts, spec.evaluation.metric, 1)
    fitted = fit(material, spec.model.model_copy(update={"rounds": 60}))
    trained = measured(spec, code, prepared, fitted, {})
    trained.bundle.save(folder / "bundle")
    hidden = {spec.data.label.column, *spec.data.exclude, *spec.data.sensitive}
    seen = [name for name in dataset.table.column_names if name not in hidden]
    flights = dataset.table.select(seen).to_pylist()
    requests = [json.loads(json.dumps({name: plain(value) for name, value in row.items()})) for row in flights]
    return Month(trained, Bundle.load(folder / "bundle"), requests)


def test_the_month_is_whole_and_has_what_can_go_wrong(month: Month, rows: pa.Table) -> None:
    assert len(month.requests) == len(month.matrix) == rows.num_rows - rows.column("late").null_count > 20_000
    kinds = {column.kind for column in month.served.schema.inputs}
    assert kinds >= {"number", "integer", "text", "timestamp"}
    gone = {name for row in month.requests for name, value in row.items() if value is None}
    assert gone >= {"plane_manufacturer", "plane_year", "wind_gust_mph"}
    assert month.trained.prepared.encoded.unseen  # a destination or manufacturer that the training part did not have


def test_every_flight_has_the_same_features_from_its_request_as_from_the_table(month: Month) -> None:
    for start in range(0, len(month.requests), BATCH):
        columns = month.served.columns(month.columns(start, start + BATCH))
        found, expected = month.served.encode(columns).matrix, month.matrix[start : start + BATCH]
        assert found.tobytes() == expected.tobytes(), f"rows {start} to {start + BATCH}"


def test_every_flight_has_the_same_prediction(month: Month) -> None:
    parts = [
        month.served.predict(month.served.columns(month.columns(start, start + BATCH)))
        for start in range(0, len(month.requests), BATCH)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), month.trained.scores)


def test_flights_that_come_one_by_one_are_no_other(month: Month) -> None:
    for place in range(0, len(month.requests), 11):
        scored = month.served.score(month.served.columns([month.requests[place]]))
        assert scored.predictions[0] == month.trained.scores[place], place
