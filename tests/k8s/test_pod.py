from __future__ import annotations

import json
import re

import pytest

from perennial_k8s.pod import MAX_REQUEST_BYTES, Manifest, run_label, step_pod
from perennial_k8s.settings import PodSettings
from perennial_spec.deployment import Deployment
from perennial_spec.errors import ContractError
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.step import STEPS, StepRequest


def the_container(pod: Manifest) -> Manifest:
    (container,) = pod["spec"]["containers"]
    return dict(container)


def environment(pod: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in the_container(pod)["env"] if "value" in entry}


def violations_of_restricted(pod: Manifest) -> list[str]:
    """The `restricted` Pod Security Standard, control by control, as kubernetes.io/docs/concepts/security lists them."""
    spec, found = pod["spec"], []
    found += [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {v['name']}" for v in spec.get("volumes", []) if not set(v) - {"name"} <= allowed]
    above = spec.get("securityContext", {})
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = {**above, **own}
        capabilities = own.get("capabilities", {})
        found += ["privileged"] if own.get("privileged") else []
        found += ["allowPrivilegeEscalation"] if own.get("allowPrivilegeEscalation") is not False else []
        found += ["runAsNonRoot"] if both.get("runAsNonRoot") is not True else []
        found += ["runAsUser"] if both.get("runAsUser", 1) == 0 else []
        found += (
            ["seccompProfile"]
            if both.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}
            else []
        )
        found += ["drop ALL"] if "ALL" not in capabilities.get("drop", []) else []
        found += ["add"] if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"} else []
        found += ["hostPort"] if any(port.get("hostPort") for port in container.get("ports", [])) else []
    return found


@pytest.mark.parametrize("step", STEPS)
def test_every_step_passes_the_restricted_pod_security_standard(
    step: str, spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    pod = step_pod(spec, request_of_train.model_copy(update={"step": step}), settings)
    assert violations_of_restricted(pod) == []


def test_the_root_file_system_is_read_only_and_tmp_is_bounded(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    pod = step_pod(spec, request_of_train, settings)
    assert the_container(pod)["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "tmp", "mountPath": "/tmp"} in the_container(pod)["volumeMounts"]
    assert {"name": "tmp", "emptyDir": {"sizeLimit": str(10 * 2**30)}} in pod["spec"]["volumes"]


def test_requests_equal_limits_and_come_from_the_spec(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    resources = the_container(step_pod(spec, request_of_train, settings))["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["cpu"] == "1500m"
    assert resources["limits"]["memory"] == str(4 * 2**30)


def test_threads_follow_the_cpu_limit_and_not_the_node(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    assert environment(step_pod(spec, request_of_train, settings))["OMP_NUM_THREADS"] == "2"


def test_the_deadline_is_the_timeout_of_the_spec_and_a_little_more(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    assert step_pod(spec, request_of_train, settings)["spec"]["activeDeadlineSeconds"] == 30 * 60 + 60


def test_a_pod_of_analyse_lives_for_one_look_however_long_the_bake(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    days = spec.model_copy(update={"deployment": Deployment.model_validate({"bake": "3d", "max_bake": "4d"})})
    pod = step_pod(days, request_of_train.model_copy(update={"step": "analyse"}), settings)
    assert 3600 + 300 < pod["spec"]["activeDeadlineSeconds"] < 2 * 3600


def test_each_kind_of_step_has_an_account_of_its_own_and_no_token(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    pods = [step_pod(spec, request_of_train.model_copy(update={"step": step}), settings)["spec"] for step in STEPS]
    assert len({pod["serviceAccountName"] for pod in pods}) == len(STEPS)
    assert not any(pod["automountServiceAccountToken"] for pod in pods)


def test_the_request_reaches_the_step_unchanged(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    text = environment(step_pod(spec, request_of_train, settings))["PERENNIAL_STEP_REQUEST"]
    assert StepRequest.model_validate_json(text) == request_of_train


def test_the_result_is_taken_from_the_termination_message(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    pod = step_pod(spec, request_of_train, settings)
    assert the_container(pod)["terminationMessagePath"] == environment(pod)["PERENNIAL_STEP_RESULT_FILE"]
    assert the_container(pod)["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert pod["spec"]["restartPolicy"] == "Never"


def test_secrets_are_only_named(spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings) -> None:
    pod = step_pod(spec, request_of_train, settings)
    reference = {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "secret-key"}}}
    assert reference in the_container(pod)["env"]


def test_labels_are_valid_and_find_the_run(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    long_key = request_of_train.model_copy(update={"run_key": "k" * 200})
    metadata = step_pod(spec, long_key, settings)["metadata"]
    for value in metadata["labels"].values():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)
    assert metadata["labels"]["perennial/run"] == run_label("k" * 200)
    assert metadata["labels"]["perennial/pipeline"] == "churn"
    assert metadata["labels"]["perennial/spec"] == "ab" * 8
    assert metadata["annotations"]["perennial/run-key"] == "k" * 200


def test_names_leave_room_for_a_suffix_within_a_dns_label(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    longest = request_of_train.model_copy(update={"pipeline": "p" * 40, "step": "validate"})
    assert len(step_pod(spec, longest, settings)["metadata"]["name"]) + len("-12345678") <= 63


def test_mounts_become_volumes_and_are_read_only(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    pod = step_pod(spec, request_of_train, settings)
    assert {"name": "mount-0", "configMap": {"name": "pipelines"}} in pod["spec"]["volumes"]
    mount = {"name": "mount-0", "mountPath": "/opt/perennial/pipelines", "readOnly": True}
    assert mount in the_container(pod)["volumeMounts"]


def test_claims_secrets_and_placement_appear_when_set_and_only_then(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    assert not {"nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets"} & set(
        step_pod(spec, request_of_train, settings)["spec"]
    )
    more = settings.model_dump() | {
        "mounts": [{"path": "/a", "claim": "a", "read_only": False}, {"path": "/b", "secret": "b"}],
        "node_selector": {"pool": "training"},
        "tolerations": [{"key": "training", "operator": "Exists"}],
        "priority_class": "low",
        "image_pull_secrets": ["registry"],
    }
    found = step_pod(spec, request_of_train, PodSettings.model_validate(more))["spec"]
    assert {"name": "mount-0", "persistentVolumeClaim": {"claimName": "a", "readOnly": False}} in found["volumes"]
    assert {"name": "mount-1", "secret": {"secretName": "b"}} in found["volumes"]
    assert found["nodeSelector"] == {"pool": "training"}
    assert found["tolerations"] == [{"key": "training", "operator": "Exists"}]
    assert found["priorityClassName"] == "low"
    assert found["imagePullSecrets"] == [{"name": "registry"}]


def test_the_same_request_gives_the_same_manifest_and_it_is_json(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    one = json.dumps(step_pod(spec, request_of_train, settings))
    assert one == json.dumps(step_pod(spec, request_of_train, settings))


def test_a_request_too_large_for_the_environment_is_refused(
    spec: PipelineSpec, request_of_train: StepRequest, settings: PodSettings
) -> None:
    large = request_of_train.model_copy(update={"inputs": {"ingest": {"text": "x" * MAX_REQUEST_BYTES}}})
    with pytest.raises(ContractError, match=r"the request of step train has \d+ bytes"):
        step_pod(spec, large, settings)
