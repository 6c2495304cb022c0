"""What came of the runs: Airflow is asked until they end, and the registry for the model that they made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from perennial_controller.airflow import Airflow, DagRun
from perennial_controller.entry import Entry
from perennial_controller.events import NewEvent
from perennial_controller.ledger import Ledger
from perennial_controller.registry import Registry
from perennial_controller.specs import Specs
from perennial_controller.steps import Step, read_steps, to_rows
from perennial_spec import names
from perennial_spec.errors import PerennialError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcomes:
    """Follows runs to their end, also those that were started past the controller."""

    ledger: Ledger
    airflow: Airflow
    registry: Registry
    specs: Specs
    clock: Callable[[], datetime]
    judged: Callable[[str, list[Step]], None]
    """Told of the steps of each run that has ended."""

    async def look(self) -> None:
        """Ask after every run that is not known to have ended, and take note of runs that the ledger does not know.

        Raises:
            PerennialError: Airflow or the registry does not answer; what was not learned is asked again. The first of
                them, after all runs were asked after: one pipeline's trouble does not hold the others.
        """
        troubles: list[PerennialError] = []
        for entry in await self.ledger.unfinished():
            try:
                await self._follow(entry)
            except PerennialError as error:
                troubles.append(error)
        try:
            await self._adopt()
        except PerennialError as error:
            troubles.append(error)
        if troubles:
            raise troubles[0]

    async def _follow(self, entry: Entry) -> None:
        assert entry.dag_id and entry.run_id
        run = await self.airflow.run(entry.dag_id, entry.run_id)
        if run is None:
            log.warning("Airflow no longer knows run %s of %s", entry.run_id, entry.dag_id)
            await self.ledger.finished(entry.id, "lost", self.clock(), None)
        elif run.finished:
            # The registry first: a run that is written as ended without its model could be trained again on the same data.
            model = await self.registry.of_run(entry.pipeline, entry.run_id)
            steps = await read_steps(self.airflow, entry.dag_id, entry.run_id)
            await self.ledger.finished(entry.id, run.state, run.ended_at or self.clock(), model, to_rows(steps))
            self.judged(entry.pipeline, steps)
            made = f"model version {model.version} ({model.verdict})" if model else "no model"
            log.info("run %s ended with %s, %s", entry.run_id, run.state, made)

    async def _adopt(self) -> None:
        pipelines = {names.dag_id(pipeline.name): pipeline.name for pipeline in self.specs.all()}
        for run in await self.airflow.unfinished(sorted(pipelines)) if pipelines else []:
            if run.dag_id in pipelines and not await self.ledger.knows(run.dag_id, run.run_id):
                now = self.clock()
                event = _event(run, pipelines[run.dag_id])
                if await self.ledger.adopt(event, run.run_id, run.queued_at or now, now):
                    log.info("run %s of %s was started by Airflow: noted", run.run_id, run.dag_id)


def _event(run: DagRun, pipeline: str) -> NewEvent:
    person = run.run_type == "manual"
    return NewEvent(
        kind="person" if person else "schedule",
        pipeline=pipeline,
        dedupe_key=f"run:{run.dag_id}:{run.run_id}",
        summary=f"started in Airflow by {run.started_by or 'hand'}" if person else f"{run.run_type} run of Airflow",
        payload={"run_type": run.run_type},
        actor=run.started_by if person else None,
    )
