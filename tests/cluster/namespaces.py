"""Hosts on one machine: namespaces of their own for processes, network, mounts and names, on one switch, whose links can be cut.

A host has an address, a home, a folder for Ray and shared memory of its own, and shares the other files. Needs root, iproute2 and util-linux.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
RAYSP = [sys.executable, "-m", "raysp"]
PORT, DASHBOARD = 6379, 8265
#: What a host runs: the command in namespaces of its own; SIGTERM reaches it, and SIGKILL to `unshare` ends everything in them.
SCRIPT = """
hostname "$NAME"
mkdir -p "$HOME" "$HOST/ray"
mount --bind "$HOST/ray" "$RAY_TMPDIR"
mount -t tmpfs -o size=1g tmpfs /dev/shm
ip link set lo up
"$@" & child=$!
trap 'kill -TERM $child' TERM
wait $child || wait $child
"""


def missing():
    """Why there can be no hosts on this machine, None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if absent := [name for name in ("ip", "unshare", "mount", "hostname") if shutil.which(name) is None]:
        return f"{', '.join(absent)} not installed"
    name = f"try{os.getpid()}"
    for words in (("ip", "netns", "add", name), ("ip", "netns", "exec", name, "unshare", "--pid", "--fork", "--mount-proc", "--mount", "--uts", "true")):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"namespaces are not permitted here ({done.stderr.strip()})"
    subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)
    return None


def ip(*words):
    subprocess.run(("ip", *words), check=True, capture_output=True)


class Host:
    """One host: its address, and the processes that were started on it."""

    def __init__(self, network, name, number):
        self.network, self.name, self.address = network, name, f"10.77.0.{number}"
        self.folder = network.folder / name
        self.folder.mkdir()
        self.namespace, self._port = f"{network.prefix}{name}", f"{network.prefix}{number}"
        ip("netns", "add", self.namespace)
        ip("link", "add", self._port, "netns", network.switch, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("-n", network.switch, "link", "set", self._port, "master", "bridge", "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        self.processes = []

    def start(self, *command, **variables):
        """Start a command on this host, with what it prints in pipes."""
        environment = {
            **self.network.environment,
            "HOME": str(self.folder / "home"),
            "RAYSP_HOME": str(self.folder / "raysp"),
            "HOST": str(self.folder),
            "NAME": self.name,
        }
        inner = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--uts", "bash", "-c", SCRIPT, "bash", *command]
        words = ["ip", "netns", "exec", self.namespace, *inner]  # `ip` becomes the command
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(words, env=environment | variables, cwd=self.folder, start_new_session=True, **pipes)
        self.processes.append(process)
        return process

    def run(self, *command, seconds=120, **variables):
        """Run a command on this host to its end: its exit code, stdout and stderr."""
        process = self.start(*command, **variables)
        out, told = process.communicate(timeout=seconds)
        return process.returncode, out, told

    def ray(self, *words, **variables):
        """Start a Ray node on this host, whose output goes to a file."""
        log = (self.folder / "ray.log").open("ab")
        shared = ["--block", f"--node-ip-address={self.address}", "--object-store-memory=100000000", "--disable-usage-stats"]
        command = ["sh", "-c", f'exec "$@" >>{log.name} 2>&1', "sh", *RAY, "start", *words, *shared]
        return self.start(*command, **variables)

    def head(self, **variables):
        """Start a head without cores here, and wait until it and its dashboard answer."""
        self.ray("--head", f"--port={PORT}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD}", "--num-cpus=0", **variables)
        self.wait_for("its dashboard", *("bash", "-c", f"until (echo > /dev/tcp/{self.address}/{DASHBOARD}) 2>/dev/null; do sleep 0.2; done"))

    def worker(self, head, cores=1, **variables):
        """Start a node of that head's cluster here."""
        self.ray(f"--address={head.address}:{PORT}", f"--num-cpus={cores}", **variables)

    def wait_for(self, what, *command):
        code, out, told = self.run("timeout", "110", *command)
        assert code == 0, f"{self.name} waited for {what}: {out}{told}"

    def cut(self):
        """Take the cable out."""
        ip("-n", self.network.switch, "link", "set", self._port, "down")

    def restore(self):
        """Put the cable back."""
        ip("-n", self.network.switch, "link", "set", self._port, "up")

    def kill(self):
        """End every process of this host as a loss of power does."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
            for stream in (process.stdout, process.stderr):
                stream.close()
        self.processes.clear()

    def end(self):
        self.kill()
        subprocess.run(("ip", "netns", "del", self.namespace), capture_output=True, check=False)


class Network:
    """A switch, and the hosts on it. `environment` is what all hosts have, a token among it."""

    def __init__(self, folder, **variables):
        self.folder, self.prefix, self.hosts = folder, f"r{os.getpid() % 100_000}", {}
        self.switch = f"{self.prefix}switch"
        self._ray = tempfile.mkdtemp(prefix="rns-")  # Ray's sockets need a short path, and every host has a folder of its own there
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "RAY_TMPDIR": self._ray, "RAY_raylet_start_wait_time_s": "120", **variables}
        for name in ("RAY_ADDRESS", "RAYSP_STORE"):
            self.environment.pop(name, None)
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")

    def host(self, name):
        """A new host."""
        self.hosts[name] = Host(self, name, len(self.hosts) + 1)
        return self.hosts[name]

    def end(self):
        for host in self.hosts.values():
            host.end()
        subprocess.run(("ip", "netns", "del", self.switch), capture_output=True, check=False)
        shutil.rmtree(self._ray, ignore_errors=True)


@contextlib.contextmanager
def network(folder, **variables):
    """A network within the block."""
    made = Network(folder, **variables)
    try:
        yield made
    finally:
        made.end()
