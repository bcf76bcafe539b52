"""How many processes of what size encode on a Ray cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mimo_plugin.errors import EnvironmentProblem

LOCAL = "local"
# Each process holds the model once; with many more cores they would wait for its one Python.
_CORES = 8


@dataclass(frozen=True)
class RayOptions:
    """Attributes:
    address: `HOST:PORT`, or `auto` for the cluster that this machine is part of; `local` is what the
        environment variable RAY_ADDRESS says, else a Ray of its own on this machine.
    workers: processes that encode; None is as many as there is room for.
    cpus: cores of each; None is 1 beside a GPU, else the smallest machine's, in groups of at most 8.
    gpus: GPUs of each; None is 1 where there are GPUs.
    debug: show what Ray says.
    """

    address: str = LOCAL
    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    debug: bool = False


@dataclass(frozen=True)
class Workers:
    """Attributes:
    count: number of processes that encode.
    cpus, gpus: what each of them has.
    """

    count: int
    cpus: int
    gpus: float


def share_out(options: RayOptions, machines: Sequence[Mapping[str, float]], device: str | None) -> Workers:
    """How many workers of what size a cluster gets.

    Args:
        machines: resources of each.
        device: that was asked for; None is the fastest.

    Raises:
        EnvironmentProblem: no machine has room for a worker.
    """
    gpus = options.gpus
    if gpus is None:
        gpus = float(device in (None, "cuda") and any(machine.get("GPU") for machine in machines))
    fit = [machine for machine in machines if machine.get("GPU", 0) >= gpus]
    cpus = options.cpus or (1 if gpus else _group([int(machine.get("CPU", 0)) for machine in fit]))
    room = sum(_room(machine, cpus, gpus) for machine in fit)
    if not room:
        most = [max((machine.get(name, 0) for machine in machines), default=0) for name in ("CPU", "GPU")]
        raise EnvironmentProblem(
            f"no machine of the Ray cluster has room for a worker of {cpus} CPUs and {gpus:g} GPUs, at most "
            f"{most[0]:g} and {most[1]:g} were found: give a lower --ray-cpus-per-worker or "
            "--ray-gpus-per-worker, or start Ray with more"
        )
    return Workers(options.workers or room, cpus, gpus)


def _group(cores: Sequence[int]) -> int:
    """Cores of a worker: the smallest machine's, in equal groups of at most 8."""
    smallest = min((count for count in cores if count), default=1)
    return smallest // -(-smallest // _CORES)


def _room(machine: Mapping[str, float], cpus: int, gpus: float) -> int:
    rooms = [machine.get("CPU", 0) // cpus]
    if gpus:
        rooms.append(machine.get("GPU", 0) // gpus)
    return int(min(rooms))
