"""The batch script of Slurm, run by bash with a real Ray of two nodes. Slurm's own commands are stand-ins that do on this machine what they do on a cluster."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import psutil
import pytest
import yaml
from shells import ROOT
from tiny_models import save

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]
SCRIPT = ROOT / "cluster/slurm/raysp.sbatch"
JOB = 4242
#: `srun` runs the command in place of itself, so that signals reach it, and leaves what it was asked for in a file; `scontrol` names two hosts.
STAND_INS = {
    "srun": 'printf "%q " "$@" >> "$STAND_INS/srun.log"; echo >> "$STAND_INS/srun.log"; while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "scontrol": 'echo "$@" >> "$STAND_INS/scontrol.log"; if [ "$1" = show ]; then printf "host1\\nhost2\\n"; fi',
}
#: What follows the prompt is read again for each mask, so that the run is under way for seconds.
LENS = {
    "kind": "feature",
    "prompt": "Her acting never fails but this film was long",
    "template": "{prompt}." + " A letter from the city said so." * 8 + " It was",
}
SPEC = {
    "lens": LENS | {"target": " good", "foil": " not", "dtype": "float32", "device": "cpu"},
    "explorer": {"kind": "exhaustive"},
    "validation": {"heldout": 0, "top": 0, "random": 0, "low_pairs": 0},
}


@pytest.fixture
def place(tmp_path):
    """What a job finds: Slurm's commands, and a spec."""
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    model = save("llama", tmp_path / "llama", context=1024)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC | {"lens": SPEC["lens"] | {"model": model}}))
    return tmp_path


@pytest.fixture
def batch(place):
    """Start the batch script as Slurm does, in a session of its own, of which nothing may be left when it has ended."""
    short = Path(tempfile.mkdtemp(prefix="s", dir=os.environ.get("RAY_TMPDIR")))  # the paths of Ray's sockets must be short
    jobs = []

    def started(**variables):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
            "PATH": f"{place}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STAND_INS": str(place),
            "TMPDIR": str(short),
            "SLURM_JOB_ID": str(JOB),
            "SLURM_JOB_NODELIST": "host[1-2]",
            "SLURM_CPUS_PER_TASK": "1",
            "RAY_raylet_start_wait_time_s": "300",  # the machine may be busy
            **variables,
        }
        with (place / "job.log").open("ab") as output:
            command = ["bash", str(SCRIPT), str(place / "spec.yaml")]
            jobs.append(subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=place, start_new_session=True))
        return jobs[-1]

    yield started
    left = [process for process in psutil.process_iter(["cmdline", "status"]) if str(short) in " ".join(process.info["cmdline"] or [])]
    for process in left:
        process.kill()
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    shutil.rmtree(short, ignore_errors=True)
    assert not left, "processes of the job outlived it"


def run_row(home):
    """The one run of the store: its id, how it ended, and how many evaluations are stored."""
    with duckdb.connect(str(home / "raysp.duckdb"), read_only=True) as store:
        rows = store.sql("SELECT run_id, status, (SELECT count(*) FROM evaluations) FROM runs").fetchall()
    (row,) = rows
    return row


def test_a_job_answers_and_one_that_is_interrupted_goes_on_when_it_is_queued_again(place, batch, home):
    token, runs = home / f"slurm-{JOB}.token", home / f"slurm-{JOB}.runs"
    job = batch(REQUEUE="1")
    until = time.monotonic() + 400
    while not runs.exists() and job.poll() is None:
        assert time.monotonic() < until, (place / "job.log").read_text()
        time.sleep(0.1)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    job.send_signal(signal.SIGTERM)
    assert job.wait(400) == 143, (place / "job.log").read_text()
    assert not token.exists()
    assert f"requeue {JOB}" in (place / "scontrol.log").read_text()
    first = run_row(home)
    assert first[1] == "interrupted", (place / "job.log").read_text()

    assert batch(SLURM_RESTART_COUNT="1").wait(600) == 0, (place / "job.log").read_text()
    second = run_row(home)
    assert second[:2] == (first[0], "done")
    assert not runs.exists()
    log = (place / "job.log").read_text()
    assert "Interactions" in log
    steps = [line for line in (place / "srun.log").read_text().splitlines() if "ray start" in line and "host" in line]
    assert [("--nodelist=host1" in line, "--exclude=host1" in line) for line in steps] == [(True, False), (False, True)] * 2
