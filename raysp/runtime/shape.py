"""How many evaluators a spec gets on this cluster, and what each of them takes. Knows nothing of the actors themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from raysp.errors import UserError
from raysp.specs.run import RunSpec

MAX_THREADS = 16
#: Ray's resources as they are asked for, and as nodes have them.
NAMED = {"num_cpus": "CPU", "num_gpus": "GPU"}
#: An evaluator that cannot be placed for this long will not be: the cluster lacks what it asks for.
PLACEMENT_SECONDS = 300.0


@dataclass(frozen=True)
class Shape:
    """The number of evaluators, the threads of each (None: as many as the process starts with), and the Ray resources of each."""

    count: int
    threads: int | None
    resources: tuple[tuple[str, float], ...]

    @property
    def has_gpu(self) -> bool:
        """Whether each evaluator has a GPU or a share of one. Without a share, Ray hides no GPU, and all evaluators would use the first."""
        return "num_gpus" in dict(self.resources)

    @property
    def key(self) -> str:
        """A text that two shapes share if their evaluators are alike, whatever their number."""
        return f"{self.threads} threads, {', '.join(f'{name} {amount:g}' for name, amount in self.resources)}"

    @property
    def each(self) -> str:
        """What each evaluator has, in words: `2 CPUs, 1 GPU`."""
        return ", ".join(f"{amount:g} {NAMED[name]}{'' if amount == 1 else 's'}" for name, amount in self.resources)

    def fitting(self) -> int:
        """How many such evaluators the nodes that are alive hold, if nothing else runs on them."""
        found = 0
        for node in ray.nodes():
            if node["Alive"]:
                found += min(int(node["Resources"].get(NAMED[name], 0.0) / amount + 1e-6) for name, amount in self.resources)
        return found

    def suits(self, spec: RunSpec) -> bool:
        """Whether such evaluators serve a run: those that it asks for, with a GPU each if it would be given one."""
        wanted = choose_shape(spec)
        return wanted.key == self.key if spec.evaluators or spec.threads or spec.gpus else self.has_gpu or not wanted.has_gpu


def unplaceable(count: int) -> UserError:
    """The error for a cluster that has placed none of `count` evaluators within `PLACEMENT_SECONDS`."""
    have = {key: value for key, value in ray.cluster_resources().items() if key in {"CPU", "GPU"}}
    return UserError("evaluators", count, f"could not be placed; the cluster has {have}", "ask for fewer evaluators or threads")


def choose_shape(spec: RunSpec) -> Shape:
    """The evaluators that a spec asks for; by default one per GPU, or on CPUs as many as fit with all the cores of the smallest node each.

    When there are more evaluators than GPUs, every GPU is shared by the same number of them. UserError for what the cluster cannot hold.
    """
    device = getattr(spec.lens, "device", "cpu")  # a function has none
    if device != "cpu":
        if device.startswith("cuda:") and device != "cuda:0":
            raise UserError("device", device, "is chosen by Ray: an evaluator sees only its own GPUs", "write cuda, or pass --local")
        if nodes := [(count, node) for node in ray.nodes() if node["Alive"] and (count := int(node["Resources"].get("GPU", 0))) > 0]:
            return _on_gpus(spec, [count for count, _ in nodes], [int(node["Resources"].get("CPU", 1)) for _, node in nodes])
    if spec.gpus:
        raise UserError("gpus", spec.gpus, "were asked for each evaluator, but the cluster has none for this device", "omit --gpus, or add nodes with GPUs")
    cores = [count for node in ray.nodes() if node["Alive"] and (count := int(node["Resources"].get("CPU", 0))) > 0] or [1]
    threads = spec.threads or min(MAX_THREADS, *cores, max(1, sum(cores) // (spec.evaluators or 1)))
    if threads > max(cores):
        raise UserError("threads", threads, f"is more than any node has ({max(cores)})", f"give at most {max(cores)}")
    most = sum(count // threads for count in cores)
    if spec.evaluators and spec.evaluators > most:
        raise UserError("evaluators", spec.evaluators, f"with {threads} threads each do not fit on {sum(cores)} cores", f"give at most {most}")
    return Shape(spec.evaluators or most, threads, (("num_cpus", threads),))


def _on_gpus(spec: RunSpec, gpus: Sequence[int], cores: Sequence[int]) -> Shape:
    """Evaluators on nodes with these numbers of GPUs and cores.

    Each reserves one core in Ray's accounting, and uses its share of the node's cores for the work that a GPU does not do.
    """

    def shape(count: int, each: float) -> Shape:
        on_a_node = [-(-count * some // sum(gpus)) for some in gpus]
        threads = min(max(have // max(sharing, 1), 1) for have, sharing in zip(cores, on_a_node, strict=True))
        return Shape(count, spec.threads or min(threads, MAX_THREADS), (("num_gpus", each), ("num_cpus", 1)))

    if spec.gpus is None:
        count = spec.evaluators or sum(gpus)
        # Ray counts in ten-thousandths: if six shares of a sixth were rounded up, the last would not fit.
        return shape(count, (10_000 // -(-count // sum(gpus))) / 10_000)
    if spec.gpus > max(gpus):
        raise UserError("gpus", spec.gpus, f"is more than any node has ({max(gpus)})", f"give at most {max(gpus)}")
    most = sum(count // spec.gpus for count in gpus)
    if spec.evaluators and spec.evaluators > most:
        raise UserError("evaluators", spec.evaluators, f"with {spec.gpus} GPUs each do not fit on {sum(gpus)} GPUs", f"give at most {most}")
    return shape(spec.evaluators or most, spec.gpus)
