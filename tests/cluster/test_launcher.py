"""The files of Ray's cluster launcher: valid by Ray's own schema and preparation, chosen from by Ray's own autoscaler, and their commands run."""

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.constants import DISABLE_LAUNCH_CONFIG_CHECK_KEY
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.scripts.scripts import start
from shells import ROOT, shell_problems

from raysp.version import __version__

LAUNCHER = ROOT / "cluster/launcher"
CLOUDS = ("aws", "gcp")
FILES = (*CLOUDS, "local")
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")


def config(name):
    return yaml.safe_load((LAUNCHER / f"{name}.yaml").read_text())


def start_line(name, key):
    """The words of the command that starts Ray on a node, and the variables that it is given."""
    line = config(name)[key][-1]
    exported = dict(word.split("=", 1) for word in shlex.split(line.partition("export ")[2].partition(";")[0]))
    return shlex.split(line.rpartition("ray start")[2]), exported


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name):
    jsonschema.validate(config(name), SCHEMA)
    prepared = prepare_config(config(name))
    validate_config(prepared)
    assert set(config(name)) <= set(SCHEMA["properties"])


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_key_would_be_noticed(name):
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        jsonschema.validate({**config(name), "setup_comands": []}, SCHEMA)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("key", COMMANDS)
def test_commands_are_sound_shell(name, key):
    for command in config(name).get(key, []):
        assert shell_problems(command) == ""


@pytest.mark.parametrize("path", sorted(path for end in ("sh", "sbatch") for path in (ROOT / "cluster").rglob(f"*.{end}")), ids=lambda path: path.name)
def test_scripts_are_sound_shell(path):
    assert shell_problems(path.read_text()) == ""


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_knows_the_options_and_asks_for_a_token(name, key):
    words, exported = start_line(name, key)
    with start.make_context("ray start", [word.replace("$RAY_HEAD_IP", "10.0.0.5") for word in words]) as context:
        given = context.params
    assert exported["RAY_AUTH_MODE"] == "token"
    assert given["metrics_export_port"] == 8080
    if key == "head_start_ray_commands":
        assert (given["head"], given["num_cpus"], given["num_gpus"], given["dashboard_host"]) == (True, 0, 0, "127.0.0.1")
        assert exported["RAY_gcs_storage"] == "rocksdb"
    else:
        assert given["address"] == "10.0.0.5:6379"


@pytest.mark.parametrize("name", CLOUDS)
def test_the_store_is_on_the_volume_that_is_mounted(name):
    _, exported = start_line(name, "head_start_ray_commands")
    (mount,) = (shlex.split(command) for command in config(name)["head_setup_commands"] if "mount_volume.sh" in command)
    assert Path(exported["RAYSP_HOME"]).parent == Path(exported["RAY_gcs_storage_path"]).parent == Path(mount[-1])
    made = (LAUNCHER / "mount_volume.sh").read_text()
    assert all(f'"$folder/{Path(exported[variable]).name}"' in made for variable in ("RAYSP_HOME", "RAY_gcs_storage_path"))


def test_googles_volume_is_not_deleted_with_the_head():
    (disk,) = (disk for disk in config("gcp")["available_node_types"]["head"]["node_config"]["disks"] if not disk.get("boot"))
    assert disk["autoDelete"] is False
    assert f"google-{disk['deviceName']} " in "\n".join(config("gcp")["head_setup_commands"])


def test_nodes_are_reached_by_ssh_only():
    for node in config("aws")["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"], "Ray makes a group that is open to all for nodes without one"
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    for node in config("gcp")["available_node_types"].values():
        assert node["node_config"]["networkInterfaces"], "Ray takes the network that is open to all for nodes without one"


def launched(name, wanted, *, unavailable=(), nodes=1):
    """The kinds of nodes that Ray's autoscaler asks the cloud for, on top of those that it always wants, and how many of each."""
    prepared = AutoscalingConfig(prepare_config(config(name)), skip_content_hash=True)

    def asked(requests):
        reply = ResourceDemandScheduler(event_logger=None).schedule(
            SchedulingRequest(
                disable_launch_config_check=bool(prepared.get_config(DISABLE_LAUNCH_CONFIG_CHECK_KEY, default=True)),
                node_type_configs=prepared.get_node_type_configs(),
                max_num_nodes=prepared.get_max_num_worker_nodes(),
                resource_requests=ResourceRequestUtil.group_by_count(requests),
                recoverable_resource_availabilities=dict.fromkeys(unavailable, 0.0),
            )
        )
        return {launch.instance_type: launch.count for launch in reply.to_launch}

    always = asked([])
    more = asked([ResourceRequestUtil.make(wanted)] * nodes)
    return {kind: count - always.get(kind, 0) for kind, count in more.items() if count > always.get(kind, 0)}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_spot_nodes_are_asked_for_first_and_others_while_there_are_none(name, kind):
    spot, fallback = (config(name)["available_node_types"][f"{kind}_{price}"] for price in ("spot", "on_demand"))
    assert spot["resources"] == fallback["resources"]
    # As many as fill whole nodes: the node that is always there takes one.
    wanted = {"GPU": 1, "CPU": 1} if kind == "gpu" else {"CPU": spot["resources"]["CPU"]}
    count = 4
    got = launched(name, wanted, nodes=count)
    assert got.keys() == {f"{kind}_spot"}
    got = launched(name, wanted, nodes=count, unavailable=[f"{kind}_spot"])
    assert got.keys() == {f"{kind}_on_demand"}


@pytest.mark.parametrize("name", CLOUDS)
def test_a_gpu_is_there_before_it_is_asked_for_and_the_head_is_not_multiplied(name):
    prepared = prepare_config(config(name))["available_node_types"]
    assert prepared["gpu_on_demand"]["min_workers"] >= 1
    assert prepared["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert prepared["head"].get("max_workers", 0) == 0


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_to_nodes_exists_or_is_made_by_a_command(name):
    mounts = config(name)["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert mounts.pop("~/raysp/dist") == "dist"
    for place, source in mounts.items():
        assert (ROOT / source).is_file(), source
        assert any(place in command for key in COMMANDS for command in config(name).get(key, [])), f"nothing uses {place}"


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_a_machine_of_ones_own_has_the_address_by_which_ssh_reached_it(tmp_path, key):
    """Without a way to the internet Ray would take 127.0.0.1, where no other machine finds it. The stand-in for `ray` prints what it is given."""
    ray = tmp_path / "raysp/venv/bin/ray"
    ray.parent.mkdir(parents=True)
    ray.write_text('#!/bin/sh\necho "$RAY_enable_autoscaler_v2" "$@"\n')
    ray.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SSH_CONNECTION": "10.0.0.4 50828 10.0.0.5 22", "RAY_HEAD_IP": "10.0.0.5"}
    done = subprocess.run(["bash", "-c", config("local")[key][-1]], env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.split()
    assert "--node-ip-address=10.0.0.5" in words
    assert done.stderr == ""
    if key.startswith("head"):
        assert words[0] == "0", "Ray's newer autoscaler leaves out one of the machines"


@pytest.mark.cluster  # a virtual environment takes ten seconds
def test_setup_commands_install_the_package_of_the_checkout(tmp_path):
    """In an empty home, without a package index: dependencies are left out, and the embedded packages are one that is there."""
    place = tmp_path / "raysp"
    (place / "dist").mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place / "dist")], cwd=ROOT, check=True, capture_output=True
    )
    (place / "constraints.txt").write_bytes((ROOT / "cluster/constraints.txt").read_bytes())
    (place / "embedded.txt").write_text("raysp\n")
    token = tmp_path / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o644)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    commands = config("local")["setup_commands"]
    for command in [*commands, *(again for again in commands if "pip install" not in again)]:  # a node that is started again sets itself up again
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    told = subprocess.run(
        ["bash", "--login", "-c", "python -c 'from raysp.version import __version__ as v; print(v)'; command -v raysp; echo $RAY_AUTH_MODE"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == [__version__, str(place / "venv/bin/raysp"), "token"]
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert (tmp_path / ".profile").read_text().count("raysp/venv") == 1
