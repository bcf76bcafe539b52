"""Encoding on a Ray cluster."""

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.survey import survey
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.environment import bar, signals_kept
from mimo_plugin.core.errors import EnvironmentProblem, UsageError
from mimo_plugin.encoder.options import AUTO, BFLOAT16, FLOAT32, EncoderOptions
from mimo_plugin.indexing.encode import Encoded, begin_vectors, check_inputs, finish_vectors
from mimo_plugin.indexing.plan import EncodingPlan
from mimo_plugin.indexing.ray_worker import RayEncoder, Work, find_terms, read_row, read_texts, vectors_of
from mimo_plugin.indexing.settings import EncodeOptions, RayOptions
from mimo_plugin.indexing.vectors import VECTORS, Shards, begun_plan

if TYPE_CHECKING:
    import pyarrow as pa

LOCAL = "local"
# More cores than these would wait for the process's single Python thread.
_CORES = 8


@dataclass(frozen=True)
class Workers:
    """Number of processes that encode, with the cores and GPUs of each."""

    count: int
    cpus: int
    gpus: float


def share_out(options: RayOptions, machines: Sequence[Mapping[str, float]], device: str | None) -> Workers:
    """The number and size of workers on a cluster.

    Args:
        machines: resources of each.
        device: as the user gave it; None is the fastest.

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


def check_address(address: str | None) -> str:
    """Resolves the address to `local`, `auto` or `HOST:PORT`.

    Raises:
        EnvironmentProblem: nothing answers at the address.
        UsageError: the address is malformed.
    """
    if address in (None, LOCAL):
        address = os.environ.get("RAY_ADDRESS") or LOCAL
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
    """Holds a connection to Ray, and ends a Ray that it started. An existing connection is used and kept.

    Raises:
        EnvironmentProblem: there is no Ray, or this machine is not part of it.
        UsageError: the address is malformed.
    """
    address = check_address(options.address)
    # Ray reads these when it is imported: no usage reports.
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
    with signals_kept(), nullcontext() if options.debug else _without_stderr():
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
    """Raises an EnvironmentProblem where no Ray of this release listens: `ray.init` would retry forever."""
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
                f"--ray {address}: the cluster asks for a token, and this machine has none: copy its "
                "~/.ray/auth_token to this machine and set RAY_AUTH_MODE=token"
            )
        reason = last_line(done.stderr)
    raise EnvironmentProblem(
        f"--ray {address}: the server there does not answer like Ray ({reason}): give the address that "
        "`ray start --head` shows, usually port 6379"
    )


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drops the messages of Ray's C++ core on standard error."""
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


def last_line(text: object) -> str:
    """The last line of an error or a traceback."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


# Ray's memory per worker: shards of texts and vectors, estimated bytes of a document's text, minimum.
_SHARDS_A_WORKER = 6
_TEXT = 4096
_LEAST = 128 * 2**20
# One shard is encoded while the next one arrives.
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
    """Encodes as `encode_collections` does, with Ray Data and the workers of its cluster.

    One process on this machine reads the collection, and this process writes the vectors: the other machines
    need no access to `output`. Another worker encodes the shard of a lost one. Both functions resume each
    other's work.

    Raises:
        EnvironmentProblem: there is no Ray, it has no room, or it failed.
        MimoError: as `encode_collections`.
    """
    options = options or EncodeOptions()
    encoder_options = encoder_options or EncoderOptions()
    backend = os.environ.get("MIMO_BACKEND")
    if backend and encoder_options.backend == AUTO:
        # The other machines do not see this process's environment.
        encoder_options = replace(encoder_options, backend=backend)
    device = encoder_options.device
    directory = Artifact(output, VECTORS)
    documents = check_inputs(
        collections,
        options,
        directory.check_output,
        require_ray,
        lambda: check_address(cluster.address),
        lambda: _check_device(device),
    )
    there = begun_plan(directory, output) if options.resume else None
    if there is not None and encoder_options.dtype == AUTO:
        encoder_options = replace(encoder_options, dtype=there.dtype or FLOAT32)
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
        if terms.dtype == BFLOAT16 and terms.dtype_reason is not None:
            terms = _terms(replace(work, sample=found.sample), workers)
        # The workers' processors may differ.
        encoder_options = replace(encoder_options, dtype=terms.dtype)
        work = replace(work, repeated=found.repeated, encoder_options=encoder_options)
        plan = terms.model_copy(
            update={
                "collection_fingerprint": found.fingerprint,
                "collection_documents": found.documents,
                "documents": options.part.documents(found.documents, options.shard_size),
                "shard": options.part.name,
                "copies": found.copies,
                "dtype_reason": there.dtype_reason if there else terms.dtype_reason,
            }
        )

        with directory.held():
            begun = begin_vectors(directory, plan, options.resume)
            _encode_shards(work, terms, workers, begun.shards, begun.missing, options.progress)
            return finish_vectors(directory, plan, begun)


def _check_device(device: str | None) -> None:
    if device is not None and ":" in device:
        raise UsageError(
            f"--device {device}: Ray gives each worker a GPU of its own, {device.partition(':')[0]} was "
            "expected (CUDA_VISIBLE_DEVICES says which of a machine's GPUs Ray is started with)"
        )


def _terms(work: Work, workers: Workers) -> EncodingPlan:
    """Asks a worker for the part of the plan that does not depend on the collection."""
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
        raise EnvironmentProblem(f"Ray has lost {lost} shards: run the command again, finished shards stay")


def _dataset(
    work: Work, terms: EncodingPlan, workers: Workers, shards: Shards, missing: Sequence[int]
) -> Any:
    """A dataset that reads the texts of the missing shards here and encodes them in the workers."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = 3600 * _PATIENCE_HOURS
    # Each row becomes one block, the unit that Ray distributes and retries.
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
    """The rows of a dataset as they are finished, each a table of one row."""
    import ray
    from ray.data.exceptions import ExecutionTimeoutError

    try:
        yield from dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0)
    except ExecutionTimeoutError as error:
        raise EnvironmentProblem(
            f"Ray has finished no shard for {_PATIENCE_HOURS} hours: no machine is left that has room for a "
            "worker, or workers die again and again (--debug shows it). Finished shards stay: run the "
            "command again"
        ) from error
    except ray.exceptions.RayError as error:
        raise EnvironmentProblem(
            f"Ray has failed: {last_line(error)} (--debug shows more). Finished shards stay: run the command "
            "again"
        ) from error
