"""The Kubernetes backend: a step is a pod. Importing this module imports the provider, which is slow: only when it is chosen."""

from __future__ import annotations

from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.sdk import BaseXCom, Context
from airflow.sdk.exceptions import AirflowException
from kubernetes.client import ApiClient, V1Pod

from perennial_k8s.ending import ending_of, result_of
from perennial_k8s.pod import CONTAINER, GRACE_SECONDS, step_pod
from perennial_k8s.settings import PodSettings
from perennial_operators.contract import StepCall, StepTask, build_request, conclude
from perennial_spec.errors import PerennialError
from perennial_spec.step import StepRequest


class KubernetesStepOperator(StepTask, KubernetesPodOperator):
    """Runs a step as a pod built by `perennial_k8s`, and reads its result from the termination message."""

    def __init__(self, *, call: StepCall, pods: PodSettings, **kwargs: Any) -> None:
        super().__init__(
            namespace=pods.namespace,
            base_container_name=CONTAINER,
            do_xcom_push=False,  # would add a sidecar; `execute_sync` pushes the outputs itself
            startup_check_interval_seconds=1,
            poll_interval=1,
            deferrable=False,  # costs 4 to 6 s more per short pod, and a kill can leave the pod behind
            durable=True,  # a task that lost its worker finds its pod again
            termination_message_policy="FallbackToLogsOnError",
            termination_grace_period=GRACE_SECONDS,
            log_pod_spec_on_failure=False,
            container_name_log_prefix_enabled=False,
            on_finish_action="delete_pod",
            **kwargs,
        )
        self.call = call
        self.pods = pods
        self._request: StepRequest | None = None

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> V1Pod:
        """The pod of this task in the run of `context`."""
        if context is None:
            raise ValueError("a step's pod is made for one run: pass the context of a task instance")
        self._request = build_request(self, self.call, context)
        manifest = step_pod(self.call.pipeline.spec, self._request, self.pods)
        self.full_pod_spec = PodGenerator.deserialize_model_dict(manifest)
        return super().build_pod_request_obj(context, dry_run=dry_run)

    def execute_sync(self, context: Context) -> dict[str, Any]:
        failure: AirflowException | None = None
        try:
            super().execute_sync(context)
        except AirflowException as error:
            failure = error
        pod = ApiClient().sanitize_for_serialization(self.remote_pod) if self.remote_pod else {}
        ending = ending_of(pod)
        if ending is None or self._request is None:
            raise failure or AirflowException(f"step {self.call.step}: nobody saw its pod end")
        try:
            result = result_of(ending, self._request)
        except PerennialError as error:
            raise AirflowException(str(error)) from None
        outputs = conclude(result, self.call, context)
        context["ti"].xcom_push(BaseXCom.XCOM_RETURN_KEY, outputs)
        return outputs
