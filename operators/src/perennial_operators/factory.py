"""Pipelines become DAGs: `<name>` trains, evaluates and deploys; `<name>.data` lands and validates new data; `<name>.retire` archives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zlib import crc32

from airflow.sdk import DAG, CronTriggerTimetable, chain, get_parsing_context
from airflow.sdk.exceptions import AirflowException

from perennial_operators.docs import describe, document
from perennial_operators.rollouts import rollout_group
from perennial_operators.tasks import approval_group, data_group, step, training_group
from perennial_spec import names
from perennial_spec.errors import PerennialError, SpecError
from perennial_spec.load import SPEC_FILE, Broken, Catalogue, Pipeline, discover, load_pipeline

LATE = timedelta(minutes=5)
"""The first scheduled run is made when it was due this long ago at most. A pipeline that is added on a Monday does not train because it
was due on Sunday (Airflow's own default when there is a start date), and a DAG that is read just after its first tick does not miss it."""


@dataclass(frozen=True)
class Built:
    """DAGs by id, and the pipelines that could not become one."""

    dags: dict[str, DAG]
    broken: tuple[Broken, ...]


def build_dags(pipelines_dir: Path) -> dict[str, DAG]:
    """The DAGs of every good pipeline, by id: `globals().update(build_dags(...))`.

    A worker that runs one task reads only the pipeline of that task. Broken pipelines are left out here, and reported by
    `report_broken` in a file of its own: Airflow hides every DAG of a file that has an error.
    """
    wanted = get_parsing_context().dag_id
    return build(_catalogue(pipelines_dir, wanted)).dags


def report_broken(pipelines_dir: Path) -> None:
    """Raise what is wrong with pipelines, so that Airflow shows it as an import error of the calling file.

    Raises:
        SpecError: at least one pipeline cannot be read or built; names each with file, line and what was expected.
    """
    broken = build(discover(pipelines_dir)).broken
    if not broken:
        return
    count = "1 pipeline is" if len(broken) == 1 else f"{len(broken)} pipelines are"
    details = "\n\n".join(f"{item.folder.name}\n{item.error}" for item in broken)
    raise SpecError(f"{count} broken; the others run\n\n{details}")


def build(catalogue: Catalogue) -> Built:
    """DAGs of a catalogue. One that cannot be built never hides the others."""
    dags: dict[str, DAG] = {}
    broken = list(catalogue.broken)
    for pipeline in catalogue.pipelines:
        try:
            own = (_training_dag(pipeline), _data_dag(pipeline), _retire_dag(pipeline))
            for dag in own:
                dag.validate()  # type: ignore[no-untyped-call]  # Airflow does so later, and then blames the file and all that is in it
        except Exception as error:  # whatever Airflow has against one pipeline must not take the others away
            broken.append(Broken(pipeline.folder, _as_ours(error, pipeline)))
        else:
            dags |= {dag.dag_id: dag for dag in own}
    return Built(dags, tuple(broken))


def the_pipeline(folder: Path) -> Pipeline:
    """One pipeline for a DAG of one's own.

    Raises:
        SpecError: it is broken; with file, line and what was expected.
    """
    return load_pipeline(folder)


def pipeline_dag(pipeline: Pipeline, *, dag_id: str | None = None, schedule: str | None = None) -> DAG:
    """An empty DAG with everything the specification says about runs: one at a time, owner, tags, documentation.

    Args:
        pipeline: from `the_pipeline`.
        dag_id: must differ from the factory's own DAG; `<pipeline>-custom` when None.
        schedule: a cron expression, UTC; none when None.
    """
    return _dag(pipeline, dag_id or f"{pipeline.name}-custom", schedule, auto_register=True)


def _training_dag(pipeline: Pipeline) -> DAG:
    # No schedule: the controller starts runs by `retraining.schedule`, so that they are on record, and can be paused.
    if pipeline.spec.retraining.schedule:
        CronTriggerTimetable(pipeline.spec.retraining.schedule, timezone="UTC").validate()
    with _dag(pipeline, names.dag_id(pipeline.name), None, auto_register=False) as dag:
        asked = [approval_group(pipeline)] if pipeline.spec.deployment.approval == "required" else []
        chain(data_group(pipeline), training_group(pipeline), *asked, rollout_group(pipeline))
    return dag


def _data_dag(pipeline: Pipeline) -> DAG:
    with _dag(pipeline, names.data_dag_id(pipeline.name), None, auto_register=False) as dag:
        data_group(pipeline)
    return dag


def _retire_dag(pipeline: Pipeline) -> DAG:
    """Once a day; each pipeline at a minute of its own, so that a hundred of them do not start at midnight."""
    minute = crc32(pipeline.name.encode()) % (24 * 60)
    with _dag(
        pipeline, names.retire_dag_id(pipeline.name), f"{minute % 60} {minute // 60} * * *", auto_register=False
    ) as dag:
        step(pipeline, "retire")
    return dag


def _dag(pipeline: Pipeline, dag_id: str, schedule: str | None, *, auto_register: bool) -> DAG:
    owner = pipeline.spec.owner
    return DAG(
        dag_id,
        description=describe(pipeline.spec),
        doc_md=document(pipeline),
        schedule=CronTriggerTimetable(schedule, timezone="UTC", run_immediately=LATE) if schedule else None,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        tags={"perennial", owner.team},
        default_args={"owner": owner.team},
        owner_links={owner.team: f"mailto:{owner.contact}"} if "@" in owner.contact else {},
        auto_register=auto_register,
    )


def _catalogue(root: Path, dag_id: str | None) -> Catalogue:
    if dag_id:
        folder = root / dag_id.removesuffix(names.data_dag_id("")).removesuffix(names.retire_dag_id(""))
        if (folder / SPEC_FILE).is_file():
            pipeline = load_pipeline(folder)
            if dag_id in {of(pipeline.name) for of in (names.dag_id, names.data_dag_id, names.retire_dag_id)}:
                return Catalogue(root, (pipeline,))
    return discover(root)


def _as_ours(error: Exception, pipeline: Pipeline) -> PerennialError:
    if isinstance(error, PerennialError):
        return error
    what = str(error) if isinstance(error, AirflowException | ValueError) else f"{type(error).__name__}: {error}"
    return SpecError(f"cannot become a DAG: {what}", where=str(pipeline.folder / SPEC_FILE))
