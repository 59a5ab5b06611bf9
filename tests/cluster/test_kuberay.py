"""The Kubernetes manifests: built by kustomize, valid by Kubernetes' own schemas without a key that these do not know, and as closed as the README says."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
KUBERAY = ROOT / "cluster/kuberay"
OVERLAYS = ("cpu", "gpu", "gpu-large")
BUILDS = [f"{folder}/{overlay}" for folder in ("overlays", "jobs") for overlay in OVERLAYS]
#: Kinds of the operator, for which Kubernetes has no schema: the pods that they describe are validated instead.
OPERATOR = {"RayCluster", "RayJob"}

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which contains kustomize, is not installed")


@cache
def built(name):
    """The documents that an overlay or a job consists of."""
    done = subprocess.run(["kubectl", "kustomize", str(KUBERAY / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def only(documents, kind, name=None):
    """The one document of a kind, or with a name."""
    (found,) = (each for each in documents if each["kind"] == kind and name in {None, each["metadata"]["name"]})
    return found


def ray_spec(name):
    """The RayCluster's specification in a build, or that within its RayJob."""
    documents = built(name)
    return only(documents, "RayCluster")["spec"] if name.startswith("overlays") else only(documents, "RayJob")["spec"]["rayClusterSpec"]


def pods(name):
    """The pods that the operator will make, by their group."""
    spec = ray_spec(name)
    return {"head": spec["headGroupSpec"]["template"], **{group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}}


@cache
def validate(document):
    """Validate a document, given as JSON. Builds share most of theirs."""
    kubernetes_validate.validate(json.loads(document), kubernetes_validate.latest_version(), strict=True)


@needs_kubectl
@pytest.mark.parametrize("name", BUILDS)
def test_every_document_is_valid_and_has_no_unknown_key(name):
    kinds = set()
    for document in built(name):
        kinds.add(document["kind"])
        if document["kind"] not in OPERATOR:
            validate(json.dumps(document))
    for group, template in pods(name).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": group}, "spec": template["spec"]}
        validate(json.dumps(pod))
    assert {"Namespace", "NetworkPolicy", "PersistentVolumeClaim", "ServiceAccount"} < kinds


@needs_kubectl
def test_an_unknown_key_of_a_pod_is_noticed():
    spec = {**pods("overlays/cpu")["head"]["spec"], "terminationGracePeriod": 90}
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "head"}, "spec": spec}, kubernetes_validate.latest_version(), strict=True
        )


@needs_kubectl
@pytest.mark.parametrize("name", BUILDS)
def test_pods_have_no_rights_that_they_do_not_need(name):
    for template in pods(name).values():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
        for container in spec["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()
            assert not [each for each in container["env"] if "TOKEN" in each["name"]]
    options = ray_spec(name)["autoscalerOptions"]
    assert options["securityContext"]["readOnlyRootFilesystem"]
    assert {"cpu", "memory"} <= options["resources"]["limits"].keys()


@needs_kubectl
@pytest.mark.parametrize("name", BUILDS)
def test_what_is_written_lies_on_a_volume(name):
    """The root file system is read-only."""
    for template in pods(name).values():
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        for container in template["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            variables = {each["name"]: each["value"] for each in container["env"]}
            assert set(mounts.values()) <= volumes
            for written in ("/tmp", variables["HOME"], variables["RAYSP_HOME"], variables["HF_HOME"]):
                assert any(Path(written).is_relative_to(mount) for mount in mounts), written
    head = pods(name)["head"]["spec"]
    assert {mount["name"] for mount in ray_spec(name)["autoscalerOptions"]["volumeMounts"]} <= {volume["name"] for volume in head["volumes"]}


@needs_kubectl
@pytest.mark.parametrize("name", BUILDS)
def test_the_head_does_no_work_holds_the_store_and_alone_is_given_an_api_token(name):
    spec = ray_spec(name)
    head = spec["headGroupSpec"]
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in head["template"]["spec"]["volumes"] if "persistentVolumeClaim" in volume}
    assert claims == {each["metadata"]["name"] for each in built(name) if each["kind"] == "PersistentVolumeClaim"}
    projected = [volume["name"] for volume in head["template"]["spec"]["volumes"] if "projected" in volume]
    mounted = [mount["name"] for container in head["template"]["spec"]["containers"] for mount in container["volumeMounts"]]
    assert projected == ["api-token"]
    assert "api-token" not in mounted, "only the autoscaler's container mounts it"
    assert "api-token" in {mount["name"] for mount in spec["autoscalerOptions"]["volumeMounts"]}
    for group in spec["workerGroupSpecs"]:
        assert not [volume for volume in group["template"]["spec"]["volumes"] if "projected" in volume]


@needs_kubectl
@pytest.mark.parametrize("name", BUILDS)
def test_ray_asks_for_a_token_and_has_the_version_of_the_constraints(name):
    pins = dict(line.split(";")[0].strip().split("==") for line in (ROOT / "cluster/constraints.txt").read_text().splitlines() if "==" in line)
    spec = ray_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == pins["ray"]
    assert spec["enableInTreeAutoscaling"]


@needs_kubectl
@pytest.mark.parametrize("name", BUILDS)
def test_nothing_reaches_a_pod_except_by_a_policy_that_names_who(name):
    policies = {each["metadata"]["name"]: each["spec"] for each in built(name) if each["kind"] == "NetworkPolicy"}
    assert policies.pop("deny-all") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies.values():
        for rule in policy.get("ingress", []):
            assert rule["from"], "an empty list means everybody"
            assert not [source for source in rule["from"] if "ipBlock" in source or source == {}]
    downloads = policies["downloads"]["egress"][0]["to"][0]["ipBlock"]
    assert "169.254.0.0/16" in downloads["except"], "there the cloud gives out credentials"


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_standing_cluster_survives_its_head_and_is_not_drained_away(overlay):
    documents = built(f"overlays/{overlay}")
    cluster = only(documents, "RayCluster")
    tolerance = cluster["spec"]["gcsFaultToleranceOptions"]
    assert (tolerance["backend"], tolerance["storage"]["deletionPolicy"]) == ("rocksdb", "Retain")
    selected = only(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert selected == {"ray.io/cluster": cluster["metadata"]["name"], "ray.io/node-type": "head"}


@needs_kubectl
@pytest.mark.parametrize(("overlay", "gpus", "image"), [("cpu", None, "raysp:cpu"), ("gpu", "1", "raysp:cuda"), ("gpu-large", "8", "raysp:cuda")])
def test_overlays_differ_in_what_workers_have(overlay, gpus, image):
    for name in (f"overlays/{overlay}", f"jobs/{overlay}"):
        (group,) = ray_spec(name)["workerGroupSpecs"]
        (worker,) = group["template"]["spec"]["containers"]
        assert worker["resources"]["limits"].get("nvidia.com/gpu") == gpus
        assert {container["image"] for template in pods(name).values() for container in template["spec"]["containers"]} == {image}
        assert bool(group["template"]["spec"].get("tolerations")) == bool(gpus)
        assert group["minReplicas"] >= bool(gpus), "questions choose GPUs among those that exist"
        assert group["minReplicas"] < group["maxReplicas"]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_job_ends_has_a_deadline_and_is_cleared_away(overlay):
    documents = built(f"jobs/{overlay}")
    assert not [each for each in documents if each["kind"] in {"RayCluster", "PodDisruptionBudget"}]
    job = only(documents, "RayJob")["spec"]
    assert job["submissionMode"] == "SidecarMode"
    assert job["activeDeadlineSeconds"] > job["preRunningDeadlineSeconds"] > 0
    assert not {"clusterSelector", "submitterPodTemplate", "shutdownAfterJobFinishes"} & job.keys(), "the operator refuses these beside sidecars and rules"
    ended = {}
    for rule in job["deletionStrategy"]["deletionRules"]:
        condition = dict(rule["condition"])
        seconds = condition.pop("ttlSeconds")
        ended.setdefault(tuple(condition.items()), {})[rule["policy"]] = seconds
    assert ended.keys() == {(("jobStatus", "SUCCEEDED"),), (("jobStatus", "FAILED"),), (("jobDeploymentStatus", "Failed"),)}
    assert all(0 < seconds["DeleteCluster"] < seconds["DeleteSelf"] for seconds in ended.values())


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_jobs_cluster_is_that_of_the_overlay_with_a_store_of_its_own(overlay):
    alone, standing = ray_spec(f"jobs/{overlay}"), ray_spec(f"overlays/{overlay}")
    assert {key: value for key, value in alone.items() if key != "headGroupSpec"} == {
        key: value for key, value in standing.items() if key not in {"headGroupSpec", "gcsFaultToleranceOptions"}
    }
    job = only(built(f"jobs/{overlay}"), "RayJob")["spec"]
    mounts = alone["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    asked = job["entrypoint"].split()[2]
    assert any(Path(asked).is_relative_to(mount["mountPath"]) and mount["name"] == "question" for mount in mounts)
