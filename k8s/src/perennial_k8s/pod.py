"""The pod of one step, as a pure function of the specification, the request and the platform's settings.

It passes the `restricted` Pod Security Standard, needs no access to the Kubernetes API, and carries no secret: only names of Secrets.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from perennial_k8s.settings import Mount, PodSettings
from perennial_spec import names
from perennial_spec.errors import ContractError
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.step import StepRequest

CONTAINER = "step"
TERMINATION_LOG = "/dev/termination-log"
MAX_REQUEST_BYTES = 100_000
"""Linux takes at most 131,072 bytes in one environment variable."""
DEADLINE_SLACK_SECONDS = 60
"""The scheduler ends an attempt first, with the better message; the pod's own deadline is for when the scheduler is gone."""
GRACE_SECONDS = 30

Manifest = dict[str, Any]


def step_pod(spec: PipelineSpec, request: StepRequest, settings: PodSettings) -> Manifest:
    """The manifest of the pod that runs `request`.

    Raises:
        ContractError: the request is too large for an environment variable.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{request.pipeline}-{request.step}",
            "namespace": settings.namespace,
            "labels": labels(request),
            "annotations": {"perennial/run-key": request.run_key, "perennial/reason": request.reason.summary},
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": f"{settings.service_account_prefix}-{request.step}",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "activeDeadlineSeconds": math.ceil(spec.step_timeout(request.step).total_seconds())
            + DEADLINE_SLACK_SECONDS,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": _pod_security(settings),
            "containers": [_container(spec, request, settings)],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": str(settings.tmp_size)}}, *_volumes(settings)],
            **_placement(settings),
        },
    }


def labels(request: StepRequest) -> dict[str, str]:
    """Labels by which pods of a pipeline, a step or a run are found; the run key is hashed, it may be too long for a label."""
    found = {
        "app.kubernetes.io/name": "perennial-step",
        "app.kubernetes.io/component": request.step,
        "app.kubernetes.io/part-of": "perennial",
        "app.kubernetes.io/managed-by": "airflow",
        "perennial/pipeline": request.pipeline,
        "perennial/step": request.step,
        "perennial/run": run_label(request.run_key),
    }
    return found | ({"perennial/spec": request.spec_digest[:16]} if request.spec_digest else {})


def run_label(run_key: str) -> str:
    """The value of the label `perennial/run`: 16 hexadecimal digits."""
    return hashlib.blake2b(run_key.encode(), digest_size=8).hexdigest()


def _container(spec: PipelineSpec, request: StepRequest, settings: PodSettings) -> Manifest:
    wanted = spec.step_resources(request.step)
    resources = {
        "cpu": f"{math.ceil(wanted.cpu * 1000)}m",
        "memory": str(wanted.memory),
        "ephemeral-storage": str(settings.tmp_size),
    }
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": _environment(request, settings, threads=max(1, math.ceil(wanted.cpu))),
        # Requests equal to limits: the pod is the last to be evicted, and a step is as fast today as tomorrow.
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": TERMINATION_LOG,
        # Without a result, the last lines of the log say why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (the pod's own emptyDir)
            *(
                {"name": f"mount-{number}", "mountPath": mount.path, "readOnly": mount.read_only}
                for number, mount in enumerate(settings.mounts)
            ),
        ],
    }


def _environment(request: StepRequest, settings: PodSettings, threads: int) -> list[Manifest]:
    text = request.model_dump_json(exclude_none=True)
    if len(text.encode()) > MAX_REQUEST_BYTES:
        raise ContractError(
            f"the request of step {request.step} has {len(text.encode())} bytes",
            expected=f"at most {MAX_REQUEST_BYTES}: it travels in an environment variable",
            next="write large outputs to the store and return their URI",
        )
    plain = {
        **settings.environment,
        "HOME": "/tmp",  # noqa: S108 (libraries write caches to the home folder; the root file system is read-only)
        "PYTHONDONTWRITEBYTECODE": "1",
        # A container sees all cores of its node; without this a step starts as many threads.
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        names.ENV_RESULT_FILE: TERMINATION_LOG,
        names.ENV_REQUEST: text,
    }
    return [{"name": name, "value": value} for name, value in plain.items()] + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": of.secret, "key": of.key}}}
        for name, of in settings.secret_environment.items()
    ]


def _pod_security(settings: PodSettings) -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": settings.user,
        "runAsGroup": settings.user,
        "fsGroup": settings.user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _volumes(settings: PodSettings) -> list[Manifest]:
    return [{"name": f"mount-{number}", **_volume_source(mount)} for number, mount in enumerate(settings.mounts)]


def _volume_source(mount: Mount) -> Manifest:
    if mount.claim:
        return {"persistentVolumeClaim": {"claimName": mount.claim, "readOnly": mount.read_only}}
    if mount.config_map:
        return {"configMap": {"name": mount.config_map}}
    return {"secret": {"secretName": mount.secret}}


def _placement(settings: PodSettings) -> Manifest:
    wanted: Manifest = {
        "nodeSelector": settings.node_selector,
        "tolerations": list(settings.tolerations),
        "priorityClassName": settings.priority_class,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
    }
    return {key: value for key, value in wanted.items() if value}
