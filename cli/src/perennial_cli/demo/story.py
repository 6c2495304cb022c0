"""The story of the demonstration: from an empty platform to a loop that has closed, told while it happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from perennial_cli.clients.airflow import Airflow
from perennial_cli.clients.controller import Controller, Decision
from perennial_cli.clients.prometheus import Prometheus, Sample
from perennial_cli.clients.server import ModelServer
from perennial_cli.demo.legs import Summary
from perennial_cli.demo.screen import Screen
from perennial_cli.demo.script import Script
from perennial_cli.demo.world import World
from perennial_cli.follow import Followed, follow
from perennial_cli.replay.engine import Progress, Replay, Target
from perennial_cli.replay.plan import Plan
from perennial_spec import names
from perennial_spec.errors import PlatformError
from perennial_spec.load import Pipeline
from perennial_spec.platform import Platform
from perennial_spec.units import format_duration

T = TypeVar("T")
RUN_SECONDS = 300.0
WAIT_SECONDS = 180.0
SAMPLE_ROWS = 200


@dataclass(frozen=True)
class Clients:
    """Everyone the story asks."""

    controller: Controller
    airflow: Airflow
    prometheus: Prometheus
    server: ModelServer

    @classmethod
    def of(cls, platform: Platform) -> Clients:
        return cls(Controller(platform), Airflow(platform), Prometheus(platform), ModelServer(platform))

    def close(self) -> None:
        for client in (self.controller, self.airflow, self.prometheus, self.server):
            client.close()


class Story:
    """One telling. Each leg raises PerennialError when what it waits for does not come true."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        platform: Platform,
        world: World,
        script: Script,
        screen: Screen,
        summary: Summary,
    ) -> None:
        self._pipeline = pipeline
        self._platform = platform
        self._world = world
        self._script = script
        self._screen = screen
        self._summary = summary
        self._clients = Clients.of(platform)

    def tell(self) -> None:
        """Run all legs; the summary holds what came of them."""
        try:
            first = self._first_model()
            self._later_data()
            plan = self._plan()
            replay = Replay(plan, Target(self._platform.need("server_url"), self._pipeline.name), self._on_tick)
            thread = threading.Thread(target=replay.run, name="replay", daemon=True)
            thread.start()
            try:
                self._drift(first)
                decision = self._decision()
                second = self._retraining(decision, first, replay.progress)
                self._resolved(second)
            finally:
                replay.stop()
                thread.join(timeout=60)
            self._proof(plan, first, second, replay.progress)
        finally:
            self._clients.close()

    # -- legs ------------------------------------------------------------------------------------------------------------

    def _first_model(self) -> str:
        """January and February arrive; the first model is trained, and serves."""
        self._screen.chapter("January and February arrive; a first model is trained")
        with self._summary.leg("First champion trained and serving") as leg:
            self._world.deliver(self._script.first_months)
            self._wait_for_dag()
            decision = self._clients.controller.request_run(self._pipeline.name, "the first model", "demo")
            if decision.run_id is None or decision.dag_id is None:
                raise PlatformError(f"no run was started: {decision.decision}: {decision.reason}", where="controller")
            done = self._follow(decision.dag_id, decision.run_id)
            train = self._clients.airflow.xcom(decision.dag_id, decision.run_id, "train")
            version = str(train["model_version"])
            self._wait(f"version {version} to answer", lambda: self._answers(version))
            auc = self._metric(decision, "evaluate")
            leg.outcome = f"version {version} answers every request{auc}; {len(done.tasks)} tasks"
        self._screen.say(leg.outcome, good=True)
        return version

    def _later_data(self) -> None:
        """March to May arrive; they are landed and validated, and nothing is trained: nobody asked for it."""
        months = self._script.later_months
        self._screen.chapter("Months pass: later data arrives, is landed and validated")
        with self._summary.leg("Later months landed and validated") as leg:
            files = self._world.deliver(months)
            decision = self._clients.controller.announce_data(
                self._pipeline.name, f"{len(files)} files arrived", "months-" + "-".join(map(str, months))
            )
            if decision.run_id is None or decision.dag_id is None:
                raise PlatformError(
                    f"the data was not taken: {decision.decision}: {decision.reason}", where="controller"
                )
            self._follow(decision.dag_id, decision.run_id)
            landed = self._clients.airflow.xcom(decision.dag_id, decision.run_id, "ingest")
            leg.outcome = f"{len(landed['landed'])} batches, {landed['rows']:,} rows in version {landed['data_version']} of the table"
        self._screen.say(leg.outcome, good=True)

    def _drift(self, version: str) -> None:
        """June's flights reach a model that has only seen winter."""
        self._screen.chapter("June's flights are replayed, many times faster than the clock")
        with self._summary.leg("Drift passes its threshold, the alert fires") as leg:
            self._wait("the drift alert", self._alert)
            worst = self._worst_features(version)
            leg.outcome = "drifted: " + ", ".join(f"{s.labels['feature']} PSI {s.value:.2f}" for s in worst)
            self._summary.facts["drift"] = {s.labels["feature"]: s.value for s in worst}
        self._screen.say(f"alert {names.ALERT_FEATURE_DRIFT} fires; {leg.outcome}", good=True)

    def _decision(self) -> Decision:
        """Alertmanager tells the controller, which writes it down and starts Airflow's DAG."""
        with self._summary.leg("Alert to decision to Airflow") as leg:
            decision = self._wait("the controller's decision", self._accepted)
            run = self._wait(
                "the run in Airflow", lambda: self._clients.airflow.run(str(decision.dag_id), str(decision.run_id))
            )
            active, received = self._active_since(), datetime.fromisoformat(decision.received_at).timestamp()
            leg.outcome = f"{received - active:.1f} s from alert to ledger"
            if run.queued:
                leg.outcome += f", {run.queued.timestamp() - received:.1f} s to Airflow"
        self._screen.say(leg.outcome, good=True)
        self._screen.say(f"decision {decision.id}: {decision.decision}: {decision.reason}")
        return decision

    def _retraining(self, decision: Decision, first: str, progress: Progress) -> str:
        """The challenger is trained on the newer window, and takes the traffic step by step."""
        self._screen.chapter("Retraining, gates, and a rollout under traffic")
        assert decision.dag_id and decision.run_id
        failed_before, title = progress.failed, "Challenger trained, judged, rolled out, promoted"
        with self._summary.leg(title) as leg:
            self._follow(decision.dag_id, decision.run_id)
            train = self._clients.airflow.xcom(decision.dag_id, decision.run_id, "train")
            judged = self._clients.airflow.xcom(decision.dag_id, decision.run_id, "evaluate")
            second = str(train["model_version"])
            if second == first:
                raise PlatformError(f"the run made no new version: {second}", where=decision.run_id)
            gain = f"gain {judged['gain']:+.4f} [{judged['gain_low']:+.4f}, {judged['gain_high']:+.4f}]"
            failed = progress.failed - failed_before
            leg.outcome = f"version {second}: {gain} on the same holdout; {failed} failed requests during the rollout"
            self._summary.facts |= {
                "gain": judged["gain"],
                "gain_low": judged["gain_low"],
                "gain_high": judged["gain_high"],
            }
            self._summary.facts |= {"failed_requests": failed}
        self._screen.say(leg.outcome, good=failed == 0)
        return second

    def _resolved(self, second: str) -> None:
        """The alert ends, because the model that serves now knows the season."""
        with self._summary.leg("Drift alert resolves against the new reference") as leg:
            self._wait("the alert to resolve", lambda: self._judged(second) and not self._alert())
            worst = self._worst_features(second)
            leg.outcome = "now: " + ", ".join(f"{s.labels['feature']} PSI {s.value:.2f}" for s in worst)
        self._screen.say(f"alert resolved; {leg.outcome}", good=True)

    def _proof(self, plan: Plan, first: str, second: str, progress: Progress) -> None:
        """Ask the server itself, and compare both models on flights that neither was trained on."""
        from perennial_cli.demo.compare import auc_on_later_flights

        self._screen.chapter("Did the loop close?")
        with self._summary.leg("Proof") as leg:
            asked = [event.inputs for event in plan.events[-SAMPLE_ROWS:]]
            answered = set(self._clients.server.versions_that_answer(self._pipeline.name, asked))
            scores = auc_on_later_flights(self._pipeline.name, self._platform, plan.events, (first, second))
            leg.outcome = (
                f"version {', '.join(sorted(answered))} answers; AUC on the flights that came after: "
                + ", ".join(f"version {version} {auc:.3f}" for version, auc in scores.items())
            )
            copies = sum(d.duplicates for d in self._clients.controller.decisions(self._pipeline.name))
            closed = answered == {second} and scores[second] > scores[first] and progress.failed == 0
            self._summary.facts |= {
                "closed": closed,
                "champion": second,
                "alert_copies": copies,
                "auc_after": scores,
                "requests": progress.requests,
                "rows": progress.rows,
                "labels": progress.labels,
                "failures": progress.failures,
                "versions": dict(progress.versions),
            }
        self._screen.say(leg.outcome, good=closed)
        self._screen.say(f"{copies} more copies of alerts reached the controller, and started nothing")

    # -- what is asked ------------------------------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        from perennial_cli.replay.load import load_plan

        script = self._script
        self._screen.say(
            f"flights from {script.replay_from:%-d %B}, {format_duration(script.per_second)} of 2013 per second"
        )
        return load_plan(
            self._pipeline,
            self._world.year,
            start=script.replay_from,
            end=script.replay_to,
            per_second=script.per_second,
        )

    def _wait_for_dag(self) -> None:
        dag = names.dag_id(self._pipeline.name)
        self._wait(f"Airflow to know the DAG {dag}", lambda: self._clients.airflow.has_dag(dag))

    def _answers(self, version: str) -> bool:
        weight = self._value(f'min({names.ROUTE_WEIGHT}{{pipeline="{self._pipeline.name}",version="{version}"}})')
        return weight == 1 and self._clients.server.is_ready(self._pipeline.name)

    def _alert(self) -> list[Sample]:
        return self._clients.prometheus.query(
            f'ALERTS{{alertname="{names.ALERT_FEATURE_DRIFT}",pipeline="{self._pipeline.name}",alertstate="firing"}}'
        )

    def _active_since(self) -> float:
        """When the alert's condition became true: what Prometheus says of it, in seconds since the epoch."""
        return self._value(
            f'ALERTS_FOR_STATE{{alertname="{names.ALERT_FEATURE_DRIFT}",pipeline="{self._pipeline.name}"}}'
        )

    def _judged(self, version: str) -> bool:
        """Whether enough rows have been counted for `version` that silence of the alert means something."""
        rows = self._value(
            f'sum(increase({names.OBSERVATIONS}{{pipeline="{self._pipeline.name}",version="{version}",'
            f'feature="{names.PREDICTION_FEATURE}"}}[{self._pipeline.spec.monitoring.drift.window}]))'
        )
        return rows >= self._pipeline.spec.monitoring.drift.min_rows

    def _worst_features(self, version: str) -> list[Sample]:
        window = self._pipeline.spec.monitoring.drift.window
        judged = f'pipeline="{self._pipeline.name}",version="{version}",feature!="{names.PREDICTION_FEATURE}"'
        ignored = f'on(pipeline, feature) {names.DRIFT_IGNORED}{{pipeline="{self._pipeline.name}"}}'
        return self._clients.prometheus.query(f"topk(3, perennial:feature_psi:{window}{{{judged}}} unless {ignored})")

    def _accepted(self) -> Decision | None:
        found = self._clients.controller.decisions(self._pipeline.name)
        return next((d for d in found if d.kind == "alert" and d.decision == "accepted" and d.run_id), None)

    def _metric(self, decision: Decision, task: str) -> str:
        value = self._clients.airflow.xcom(str(decision.dag_id), str(decision.run_id), task) or {}
        gates = [g for g in value.get("gates", []) if g.get("gate", "").startswith("roc_auc")]
        return f", AUC {gates[0]['value']:.3f} on its holdout" if gates else ""

    def _value(self, expression: str) -> float:
        found = self._clients.prometheus.query(expression)
        return found[0].value if found else 0.0

    # -- waiting and telling -------------------------------------------------------------------------------------------------

    def _follow(self, dag_id: str, run_id: str) -> Followed:
        told: set[str] = set()

        def tell(now: Followed) -> None:
            for task in now.tasks:
                if task.state in {"success", "failed"} and task.id not in told:
                    told.add(task.id)
                    self._screen.say(
                        f"{task.id}: {task.state} in {task.seconds or 0:.1f} s", good=task.state == "success"
                    )
            running = ", ".join(task.id for task in now.tasks if task.state == "running")
            self._screen.now(f"{dag_id}: {running or now.run.state}")

        done = follow(self._clients.airflow, dag_id, run_id, tell, timeout_seconds=RUN_SECONDS)
        if not done.succeeded:
            failed = ", ".join(task.id for task in done.failed_tasks) or "no task"
            raise PlatformError(
                f"the run {run_id} ended {done.run.state}; failed: {failed}",
                where=f"Airflow at {self._platform.airflow_url}",
                next="read the task's log in Airflow, or: perennial logs airflow-scheduler",
            )
        return done

    def _wait(self, what: str, arrived: Callable[[], T | None]) -> T:
        began, last = time.monotonic(), ""
        while True:
            try:
                if found := arrived():
                    return found
            except PlatformError as error:  # a part that is busy or starts again may answer the next time
                last = f"; at last: {error}"
            if time.monotonic() - began > WAIT_SECONDS:
                raise PlatformError(
                    f"waited {WAIT_SECONDS:g} s for {what}{last}", where=self._pipeline.name, next="perennial status"
                )
            self._screen.now(f"waiting for {what}")
            time.sleep(0.25)

    def _on_tick(self, progress: Progress) -> None:
        if progress.simulated is not None:
            self._screen.now(
                f"{progress.simulated:%-d %B %Y}: {progress.rows:,} flights asked, "
                f"{progress.labels:,} labels, {progress.failed} failed requests"
            )
