"""The image and the Compose file: linted, valid by the Compose specification, and closed."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose
from ray.scripts.scripts import start
from shells import ROOT, shell_problems, tool

DOCKER = ROOT / "cluster/docker"
DOCKERFILE = DOCKER / "Dockerfile"
#: Containers of this project's image, and those of others.
NODES, OTHERS = ("head", "worker"), ("prometheus", "grafana")


def instructions():
    """The Dockerfile's instructions, a word and the rest each, without comments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    return [line.split(maxsplit=1) for line in "\n".join(lines).replace("\\\n", "").splitlines() if line.strip()]


def compose(name="compose"):
    return yaml.safe_load((DOCKER / f"{name}.yaml").read_text())


def test_the_linter_has_nothing_against_the_image():
    done = subprocess.run([tool("hadolint"), "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_linter_would_notice_an_unpinned_base(tmp_path):
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python\nRUN cd /tmp\n")
    done = subprocess.run([tool("hadolint"), "--no-color", str(broken)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert {"DL3006", "DL3003"} <= set(re.findall(r"DL\d+", done.stdout))


def test_one_argument_chooses_cpus_or_gpus_and_versions_are_those_of_the_constraints():
    declared = [rest for word, rest in instructions() if word == "ARG"]
    assert declared == ["BASE=python:3.12.12-slim-bookworm", "COMPUTE=cpu"]
    assert {rest.split()[0] for word, rest in instructions() if word == "FROM"} == {"${BASE}"}
    installs = [part for word, rest in instructions() if word == "RUN" for part in re.split(r"&&|;", rest) if "pip install" in part]
    assert len(installs) == 3
    for each in installs:
        assert "--constraint cluster/constraints.txt" in each or "--no-deps --requirement cluster/embedded.txt" in each
    for word, rest in instructions():
        if word == "RUN":
            assert shell_problems(rest) == ""


def test_the_image_runs_as_a_user_with_its_data_on_volumes_and_holds_no_secret():
    last = dict(instructions())
    assert last["USER"] == "1000:1000"
    variables = dict(part.split("=", 1) for part in shlex.split(last["ENV"]))
    volumes = yaml.safe_load(last["VOLUME"])
    assert {"/store", "/models"} == set(volumes)
    assert Path(variables["RAYSP_HOME"]).is_relative_to("/store")
    assert Path(variables["HF_HOME"]).is_relative_to("/models")
    assert variables["RAY_AUTH_MODE"] == "token"
    assert not [name for word, rest in instructions() if word in {"ENV", "ARG"} for name in re.findall(r"\w*(?:TOKEN|SECRET|PASSWORD)\w*", rest)]


def test_the_builder_is_sent_what_the_image_is_made_of_and_nothing_else():
    sent = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for word, rest in instructions() if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]]
    assert sorted(sent) == sorted(copied)
    assert all((ROOT / source).exists() for source in copied)
    assert "*" in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()


@pytest.mark.parametrize("name", ["compose", "compose.gpu"])
def test_the_file_is_valid_by_the_specification_of_compose(name):
    """Merge keys are resolved by whoever reads the YAML."""
    services = compose(name)["services"]
    plain = yaml.safe_dump({key: value for key, value in compose(name).items() if not key.startswith("x-")})
    assert sorted(PyCompose.from_yaml(plain).service_names()) == sorted(services)
    with pytest.raises(ValueError, match="volums"):
        PyCompose.from_yaml(plain.replace("image:", "volums: []\n    image:", 1))


def test_nothing_is_published_beyond_this_machine():
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_containers_have_no_rights_limits_of_memory_and_come_back():
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert service["mem_limit"]
        assert not {"privileged", "network_mode", "pid"} & service.keys()
        if name in OTHERS:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), "a version, not whatever is newest"
    assert all(compose()["services"][name]["read_only"] for name in NODES)


def test_nodes_ask_for_the_token_of_the_environment_and_refuse_to_start_without_one():
    for name in NODES:
        environment = compose()["services"][name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


def test_ray_knows_the_options_of_the_nodes_and_the_head_does_no_work():
    given = {}
    for name in NODES:
        words = shlex.split(compose()["services"][name]["command"])
        assert words[:2] == ["ray", "start"]
        with start.make_context("ray start", words[2:]) as context:
            given[name] = context.params
        assert given[name]["block"], "the container ends with Ray"
    head = compose()["services"]["head"]
    assert (given["head"]["num_cpus"], given["head"]["num_gpus"]) == (0, 0)
    assert given["worker"]["address"] == f"{head['networks']['ray']['ipv4_address']}:{given['head']['port']}"
    assert compose()["services"]["worker"]["deploy"]["replicas"] == 2
    assert Path(head["environment"]["RAY_gcs_storage_path"]).is_relative_to("/store")
    assert "store:/store" in head["volumes"]


@pytest.mark.skipif(not (ROOT / "cluster/prometheus").is_dir(), reason="the configuration of Prometheus and Grafana is not there")
def test_files_that_are_mounted_exist():
    mounted = [volume.split(":")[0] for service in compose()["services"].values() for volume in service["volumes"] if volume.startswith(".")]
    assert len(mounted) == 4
    assert all((DOCKER / source).exists() for source in mounted)
