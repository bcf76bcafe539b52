"""Encoding on a Ray cluster."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.survey import survey
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import EnvironmentProblem, Problems, UsageError
from mimo_plugin.encoder.encoder import EncoderOptions
from mimo_plugin.encoder.options import AUTO
from mimo_plugin.indexing.encode import Encoded, begin_vectors, finish_vectors, open_pool
from mimo_plugin.indexing.plan import EncodingPlan
from mimo_plugin.indexing.ray_worker import RayEncoder, Work, find_terms, read_row, read_texts, vectors_of
from mimo_plugin.indexing.settings import EncodeOptions
from mimo_plugin.indexing.vectors import VECTORS, Shards

if TYPE_CHECKING:
    import pyarrow as pa

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
    # The smallest machine's cores, in equal groups.
    smallest = min((int(machine["CPU"]) for machine in fit if machine.get("CPU", 0) >= 1), default=1)
    cpus = options.cpus or (1 if gpus else smallest // -(-smallest // _CORES))
    room = 0
    for machine in fit:
        rooms = [machine.get("CPU", 0) // cpus, machine.get("GPU", 0) // gpus if gpus else inf]
        room += int(min(rooms))
    if not room:
        most = [max((machine.get(name, 0) for machine in machines), default=0) for name in ("CPU", "GPU")]
        raise EnvironmentProblem(
            f"no machine of the Ray cluster has room for a worker of {cpus} CPUs and {gpus:g} GPUs, at most "
            f"{most[0]:g} and {most[1]:g} were found: give a lower --ray-cpus-per-worker or "
            "--ray-gpus-per-worker, or start Ray with more"
        )
    return Workers(options.workers or room, cpus, gpus)


_ADDRESS = re.compile(r"(\[[^\]]+\]|[^\s:/]+):(\d{1,5})")
_CONNECT_SECONDS = 5
_STATUS_SECONDS = 30


def require_ray() -> None:
    """Raises an EnvironmentProblem where Ray Data is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            f"--ray needs Ray Data, and it cannot be imported ({error}): pip install 'mimo-plugin[ray]'"
        ) from error


def check_address(address: str) -> str:
    """The address that an option stands for: `local`, `auto` or `HOST:PORT`.

    Raises:
        EnvironmentProblem: nothing answers there.
        UsageError: it is malformed.
    """
    address = (os.environ.get("RAY_ADDRESS") or LOCAL) if address == LOCAL else address
    if address in (LOCAL, "auto"):
        return address
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UsageError(
            f"--ray {address!r}: HOST:PORT or auto was expected, a Ray cluster that this machine is part of, "
            "or no value for a Ray on this machine alone (collections are named before --ray)"
        )
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EnvironmentProblem(
            f"--ray {address}: no Ray answers there ({error}): start it with `ray start --head --port "
            f"{match[2]}` on that machine, and `ray start --address {address}` on the others"
        ) from error
    return address


@contextmanager
def connected(options: RayOptions) -> Iterator[None]:
    """Holds a connection to Ray; a Ray that was started here ends with it. A connection that the process has
    already is used and kept.

    Raises:
        EnvironmentProblem: there is no Ray, or this machine is not part of it.
        UsageError: the address is malformed.
    """
    address = check_address(options.address)
    # Read when Ray is imported and started: nothing is reported to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not options.debug:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    level = logging.INFO if options.debug else logging.CRITICAL
    settings: dict[str, Any] = {"address": address, "log_to_driver": options.debug, "logging_level": level}
    if address == LOCAL:
        settings |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    elif address != "auto":
        _require_answer(address)
    with _own_signals(), nullcontext() if options.debug else _without_stderr():
        try:
            ray.init(**settings)
        except (OSError, RuntimeError, ValueError) as error:
            ray.shutdown()
            raise EnvironmentProblem(
                f"--ray {address}: {last_line(error)} (this machine must be part of the cluster: "
                "`ray start --address HOST:PORT`)"
            ) from error
    with nullcontext() if options.debug else _without_remarks():
        try:
            yield
        finally:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Raises an EnvironmentProblem where no Ray of this release listens: `ray.init` would retry for ever."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_STATUS_SECONDS)
    except subprocess.TimeoutExpired:
        reason = "no answer"
    else:
        if done.returncode == 0:
            return
        if "token" in done.stderr.lower():
            raise EnvironmentProblem(
                f"--ray {address}: the cluster asks for a token that it does not get from here: copy its "
                "~/.ray/auth_token to this machine and set RAY_AUTH_MODE=token"
            )
        reason = last_line(done.stderr)
    raise EnvironmentProblem(
        f"--ray {address}: what listens there does not answer as Ray does ({reason}): give the address that "
        "`ray start --head` shows, usually port 6379"
    )


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drops the messages of Ray's C++ part on standard error while it starts."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Drops Ray's messages about retried tasks, which go to standard output."""
    logger = logging.getLogger("ray.data")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps the handler that ends a command in good order: Ray replaces it by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_line(text: object) -> str:
    """The line of an error of Ray that says what was wrong: of a traceback the last one."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


# What may lie in Ray's memory for each worker: shards on their way there and back, with texts of about so
# many bytes a document, but not less than this.
_SHARDS_A_WORKER = 6
_TEXT = 4096
_LEAST = 128 * 2**20
# One is encoded while the next one's texts arrive.
_IN_FLIGHT = 2
_PATIENCE_HOURS = 2


def encode_on_ray(
    collections: Sequence[str],
    encoder: str,
    output: Path,
    cluster: RayOptions,
    options: EncodeOptions | None = None,
    encoder_options: EncoderOptions | None = None,
) -> Encoded:
    """Encodes as `encode` does, with Ray Data and the workers of its cluster.

    One process, on this machine, reads the collection; a shard whose worker is lost is encoded by another
    one; the vectors come back and are written here, so that the other machines need not see `output`. It
    resumes what `encode` began, and the other way round.

    Raises:
        EnvironmentProblem: no Ray, no room in it, or it has failed.
        MimoError: as `encode`.
    """
    options = options or EncodeOptions()
    encoder_options = encoder_options or EncoderOptions()
    backend = os.environ.get("MIMO_BACKEND")
    if backend and encoder_options.backend == AUTO:
        # What the environment here says holds on all machines.
        encoder_options = replace(encoder_options, backend=backend)
    device = encoder_options.device
    directory = Artifact(output, VECTORS)
    problems = Problems()
    with problems.collect():
        documents = open_pool(collections, options)
    with problems.collect():
        directory.check_output()
    with problems.collect():
        require_ray()
    with problems.collect():
        check_address(cluster.address)
    if device is not None and ":" in device:
        problems.add(
            f"--device {device}: Ray gives each worker a GPU of its own, {device.partition(':')[0]} was "
            "expected (CUDA_VISIBLE_DEVICES says which of a machine's GPUs Ray is started with)",
            UsageError,
        )
    problems.raise_any()
    with connected(cluster):
        import ray

        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers = share_out(cluster, machines, device)
        work = Work(
            documents.specs,
            documents.fields,
            documents.prefixes is not None,
            Path.cwd(),
            documents.prefixes,
            str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder,
            encoder_options,
            options.shard_size,
            workers.cpus,
        )
        terms = _terms(work, workers)
        found = survey(documents, duplicates=options.duplicates, progress=options.progress)
        work = replace(work, repeated=found.repeated)
        plan = terms.model_copy(
            update={
                "collection_fingerprint": found.fingerprint,
                "collection_documents": found.documents,
                "documents": options.part.documents(found.documents, options.shard_size),
                "shard": options.part.name,
                "copies": found.copies,
            }
        )

        with directory.held():
            begun = begin_vectors(directory, plan, options.resume)
            _encode_shards(work, terms, workers, begun.shards, begun.missing, options.progress)
            return finish_vectors(directory, plan, begun)


def _terms(work: Work, workers: Workers) -> EncodingPlan:
    """The part of the plan that does not depend on the collection, from a worker."""
    import ray

    task = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(find_terms)
    try:
        row = ray.get(task.remote(work))
    except ray.exceptions.RayError as error:
        raise EnvironmentProblem(
            f"Ray could not run a worker: {last_line(error)} (is mimo-plugin installed on every machine?)"
        ) from error
    return EncodingPlan.model_validate(read_row(row)[1])


def _encode_shards(
    work: Work,
    terms: EncodingPlan,
    workers: Workers,
    shards: Shards,
    missing: Sequence[int],
    progress: bool | None,
) -> None:
    """Writes the missing shards as the workers finish them."""
    total, left = shards.documents_in(shards.numbers), shards.documents_in(missing)
    done = set()
    with bar(total=total, initial=total - left, what="encoding", unit="docs", enabled=progress) as counter:
        for row in _rows(_dataset(work, terms, workers, shards, missing)) if missing else ():
            shard, batch, empty = vectors_of(row)
            shards.write(shard, batch, empty)
            counter.update(shards.rows(shard))
            done.add(shard)
    if lost := len(set(missing) - done):
        raise EnvironmentProblem(f"Ray has lost {lost} shards: run the command again, what is done is kept")


def _dataset(
    work: Work, terms: EncodingPlan, workers: Workers, shards: Shards, missing: Sequence[int]
) -> Any:
    """Shards' numbers -> texts, in one process here -> vectors, in the workers."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = 3600 * _PATIENCE_HOURS
    # A row of any size is a block of its own, the unit that is handed out and done again.
    context.target_max_block_size = 1
    shard = work.shard_size * (4 * terms.dimension + _TEXT)
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=workers.count * max(_SHARDS_A_WORKER * shard, _LEAST)
    )
    with ray.data.DataContext.current(context):
        return (
            ray.data.from_items([0])
            .map_batches(
                read_texts,
                batch_format="pyarrow",
                fn_args=(work, shards, missing),
                num_cpus=0,
                label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
                runtime_env={"env_vars": work.env()},
            )
            .map_batches(
                RayEncoder,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_args=(work, terms),
                num_cpus=workers.cpus,
                num_gpus=workers.gpus,
                compute=ray.data.ActorPoolStrategy(
                    size=workers.count, max_tasks_in_flight_per_actor=_IN_FLIGHT
                ),
            )
        )


def _rows(dataset: Any) -> Iterator["pa.Table"]:
    """The rows of a dataset as they are done, each a table of one row."""
    import ray
    from ray.data.exceptions import ExecutionTimeoutError

    try:
        yield from dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0)
    except ExecutionTimeoutError as error:
        raise EnvironmentProblem(
            f"Ray has finished no shard for {_PATIENCE_HOURS} hours: no machine is left that has room for a "
            "worker, or workers die again and again (--debug shows it). What is done is kept: run the "
            "command again"
        ) from error
    except ray.exceptions.RayError as error:
        raise EnvironmentProblem(
            f"Ray has failed: {last_line(error)} (--debug shows more). What is done is kept: run the command "
            "again"
        ) from error
