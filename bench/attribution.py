"""How far attributions shift when nothing is wrong, and when something is: the limit of PerennialAttributionShift, measured on the flights.

    python bench/attribution.py [--trees 200]

Trains the flight-delays model on January and February 2013, as its pipeline says or with so many trees. Explains samples of days of the
rest of the year, and rows of the holdout whose inputs have changed their meaning. Prints a table: the shift over the features that drift
judges, over all features, and the largest PSI of a judged feature.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from perennial_cli.demo.world import World
from perennial_features.attribution import Attribution
from perennial_features.code import load_features
from perennial_features.encode import encode_all
from perennial_features.engine import contributions
from perennial_features.reference import Reference
from perennial_spec.load import Pipeline, load_pipeline
from perennial_steps.training.attribution import attribution
from perennial_steps.training.dataset import Dataset, assemble, divide
from perennial_steps.training.fit import Fitted, Material, fit
from perennial_steps.training.prepare import Prepared, prepare

FOLDER = Path(__file__).parents[1] / "dags" / "pipelines" / "flight-delays"
DAY_ROWS, FAULTY_ROWS, EVERY = 500, 1500, 3
CHANCE = (200, 500, 1500)
Matrix = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Trained:
    """A model, and what its live inputs are compared with."""

    pipeline: Pipeline
    prepared: Prepared
    fitted: Fitted

    @cached_property
    def unfitted(self) -> Matrix:
        """float32[rows, features]: validation and holdout."""
        found: Matrix = self.prepared.encoded.matrix[self.prepared.parts.validation.rows.start :]
        return found

    @cached_property
    def attribution(self) -> Attribution:
        found = attribution(self.fitted.booster, self.prepared.schema, self.unfitted)
        assert found is not None
        return found

    @cached_property
    def judged(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool[features]: those that drift does not ignore."""
        return ~np.isin(self.attribution.features, self.pipeline.spec.monitoring.drift.ignore)

    @cached_property
    def reference(self) -> Reference:
        scores = self.fitted.booster.inplace_predict(self.unfitted)
        return Reference.of(self.prepared.encoded, self.prepared.schema, scores)

    def totals(self, rows: Matrix) -> Matrix:
        """float32[features]: sum of |contribution|."""
        found: Matrix = np.abs(contributions(self.fitted.booster, rows)[:, :-1]).sum(axis=0)
        return found

    def shifts(self, totals: Matrix) -> tuple[float, float]:
        """Over the judged features, and over all."""
        shares = np.array(self.attribution.shares)
        return shift(totals[self.judged], shares[self.judged]), shift(totals, shares)

    def psi(self, rows: Matrix) -> float:
        """The largest of a judged feature."""
        found = self.reference.psi(self.reference.count(rows, self.fitted.booster.inplace_predict(rows)))
        judged = np.array(self.attribution.features)[self.judged]
        return max(found[name] for name in judged)


def shift(live: Matrix, reference: Any) -> float:
    """Total variation of the shares."""
    return float(np.abs(live / live.sum() - reference / reference.sum()).sum() / 2)


def read(folder: Path, pipeline: Pipeline, first: datetime, last: datetime) -> Dataset:
    """The pipeline's own query over the year of 2013."""
    import duckdb

    World(folder / "year", folder / "lake").prepare()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, files in (("flights", "flights/*"), ("weather", "weather/*"), ("planes", "planes")):
            connection.read_parquet(f"{folder}/year/{files}.parquet").create_view(table)
        rows = connection.sql((FOLDER / "features.sql").read_text())
        hidden = [name for name in pipeline.spec.data.exclude if name in rows.columns]
        kept = rows.filter(f"scheduled_departure >= '{first:%F}' AND scheduled_departure < '{last:%F}'")
        table = kept.select(f"* EXCLUDE ({', '.join(hidden)})").to_arrow_table()
    return assemble(table, pipeline.spec.data, pipeline.spec.model.kind)


def train(pipeline: Pipeline, dataset: Dataset, trees: int | None) -> Trained:
    spec = pipeline.spec
    code = load_features(pipeline.features_file, pipeline.features_function)
    parts = divide(dataset, spec.model.split, spec.model.kind)
    prepared = prepare(dataset, parts, code)
    model = spec.model.model_copy(update={"rounds": trees, "early_stopping": None}) if trees else spec.model
    material = Material(prepared.encoded.matrix, dataset.label, prepared.schema, parts, spec.evaluation.metric, 2)
    return Trained(pipeline, prepared, fit(material, model))


def days(trained: Trained, dataset: Dataset) -> Iterator[Matrix]:
    """A sample of every third day."""
    pipeline, prepared = trained.pipeline, trained.prepared
    code = load_features(pipeline.features_file, pipeline.features_function)
    features = code.apply({name: dataset.inputs[name] for name in prepared.inputs})
    matrix = encode_all(features, prepared.schema).matrix
    day = dataset.timestamp.astype("datetime64[D]")
    random = np.random.default_rng(0)
    for each in np.unique(day)[::EVERY]:
        rows = np.flatnonzero(day == each)
        yield matrix[random.choice(rows, min(DAY_ROWS, len(rows)), replace=False)]


def faults(trained: Trained) -> Iterator[tuple[str, Matrix]]:
    """The same rows of the holdout, each time with other inputs that have changed their meaning."""
    random = np.random.default_rng(1)
    rows = trained.unfitted[random.choice(len(trained.unfitted), FAULTY_ROWS, replace=False)]
    place = {name: number for number, name in enumerate(trained.attribution.features)}

    def old(name: str) -> Matrix:
        found: Matrix = rows[:, place[name]]
        return found

    def new(**columns: Any) -> Matrix:
        found = rows.copy()
        for name, values in columns.items():
            found[:, place[name]] = values
        return found

    carriers = random.permutation(int(np.nanmax(old("carrier"))) + 1)
    yield "holdout as it is", rows
    yield "the carrier missing", new(carrier=np.nan)
    yield "departure in hours instead of minutes", new(departure_minute=old("departure_minute") // 60)
    yield "the destination missing", new(destination=np.nan)
    swapped = {"distance_miles": old("planned_minutes"), "planned_minutes": old("distance_miles")}
    yield "distance and planned time exchanged", new(**swapped)
    yield "departure always at 8:00", new(departure_minute=480)
    planes = dict.fromkeys(("plane_age_years", "plane_seats", "plane_manufacturer"), np.nan)
    yield "nothing of the register of planes", new(**planes)
    yield "carriers' codes exchanged at random", new(carrier=carriers[np.nan_to_num(old("carrier")).astype(int)])
    yield "departure in UTC instead of local time", new(departure_minute=(old("departure_minute") + 300) % 1440)
    yield "distance in kilometres", new(distance_miles=old("distance_miles") * 1.609)
    shuffled = {name: random.permutation(old(name)) for name in np.array(list(place))[trained.judged]}
    yield "each judged feature shuffled by itself", new(**shuffled)


def chance(trained: Trained) -> Iterator[str]:
    """Samples of one kind of rows beside each other, and what the rule allows for."""
    absolute = np.abs(contributions(trained.fitted.booster, trained.unfitted)[:, :-1])
    random, known = np.random.default_rng(2), trained.attribution.rows
    for size in CHANCE:
        found = []
        for _ in range(2000):
            places = random.permutation(len(absolute))[: known + size]
            found.append(shift(absolute[places[known:]].sum(axis=0), absolute[places[:known]].sum(axis=0)))
        yield f"| {size} rows | {np.quantile(found, 0.9995):.3f} | {trained.attribution.noise_at(size):.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, help="instead of as many as the pipeline finds best")
    arguments = parser.parse_args()
    pipeline = load_pipeline(FOLDER)
    first, last, end = (datetime(*at, tzinfo=UTC) for at in ((2013, 1, 1), (2013, 3, 1), (2014, 1, 1)))
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
        trained = train(pipeline, read(Path(folder), pipeline, first, last), arguments.trees)
        live = list(days(trained, read(Path(folder), pipeline, last, end)))
    print(f"{trained.fitted.rounds} trees\n\n| rows | judged features | all | PSI |\n| --- | --- | --- | --- |")
    quiet = np.array([(*trained.shifts(trained.totals(rows)), trained.psi(rows)) for rows in live])
    for name, share in (("median", 0.5), ("95%", 0.95), ("highest", 1.0)):
        judged, whole, psi = np.quantile(quiet, share, axis=0)
        print(f"| {DAY_ROWS} flights of a day, {len(quiet)} days: {name} | {judged:.3f} | {whole:.3f} | {psi:.2f} |")
    for name, rows in faults(trained):
        judged, whole = trained.shifts(trained.totals(rows))
        print(f"| {name} | {judged:.3f} | {whole:.3f} | {trained.psi(rows):.2f} |")
    print("\n| by chance | highest 0.05% of 2,000 | the rule's noise |\n| --- | --- | --- |")
    print("\n".join(chance(trained)))


if __name__ == "__main__":
    main()
