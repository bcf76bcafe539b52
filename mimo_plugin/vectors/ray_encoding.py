"""`mimo encode --ray`: the same shards and manifest as on one machine, made by Ray Data on several."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.backends.choosing import AUTO
from mimo_plugin.collections import load_pool, pool_prefixes, require
from mimo_plugin.collections.survey import survey
from mimo_plugin.errors import EnvironmentProblem, Findings, UsageError
from mimo_plugin.progress import bar
from mimo_plugin.student import EncoderOptions
from mimo_plugin.vectors.directory import VectorsDirectory
from mimo_plugin.vectors.encoding import Encoded, EncodeOptions, complete
from mimo_plugin.vectors.plan import EncodingPlan
from mimo_plugin.vectors.ray_cluster import check_address, connected, last_line, machines, require_ray
from mimo_plugin.vectors.ray_options import RayOptions, Workers, share_out
from mimo_plugin.vectors.ray_rows import raise_trouble, refuse_trouble, vectors_of
from mimo_plugin.vectors.ray_worker import Encoder, Work, find_terms, read_texts
from mimo_plugin.vectors.shards import Shards

if TYPE_CHECKING:
    import pyarrow as pa

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
    *,
    fields: Sequence[str] | None = None,
    pooled: bool = False,
) -> Encoded:
    """Encodes as `encode_collections` does, with Ray Data and the workers of its cluster.

    One process, on this machine, reads the collection; a shard whose worker is lost is encoded by another
    one; the vectors come back and are written here, so that the other machines need not see `output`. What a
    call of `encode_collections` began is gone on with, and the other way round.

    Raises:
        EnvironmentProblem: no Ray, no room in it, or it has failed.
        MimoError: as `encode_collections`.
    """
    options = options or EncodeOptions()
    encoder_options = _settled(encoder_options or EncoderOptions())
    directory = VectorsDirectory(output)
    findings = Findings()
    findings.attempt(require, collections, docs=True)
    findings.attempt(directory.refuse_foreign)
    findings.attempt(require_ray)
    findings.attempt(check_address, cluster.address)
    findings.attempt(_refuse_numbered, encoder_options.device)
    findings.raise_any()
    in_pool = pooled or len(collections) > 1
    with connected(cluster):
        workers = share_out(cluster, machines(), encoder_options.device)
        work = Work(
            tuple(collections),
            tuple(fields) if fields else None,
            in_pool,
            Path.cwd(),
            pool_prefixes(collections) if in_pool else None,
            str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder,
            encoder_options,
            options.shard_size,
            workers.cpus,
        )
        terms = _terms(work, workers)
        found = survey(
            load_pool(collections, fields=fields, pooled=in_pool),
            duplicates=options.duplicates,
            progress=options.progress,
        )
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

        def encode(shards: Shards, missing: Sequence[int]) -> None:
            _encode_shards(work, terms, workers, shards, missing, options.progress)

        return complete(directory, plan, options.resume, encode)


def _settled(options: EncoderOptions) -> EncoderOptions:
    """What the environment here says holds on all machines."""
    backend = os.environ.get("MIMO_BACKEND")
    return replace(options, backend=backend) if backend and options.backend == AUTO else options


def _refuse_numbered(device: str | None) -> None:
    if device is not None and ":" in device:
        raise UsageError(
            f"--device {device}: Ray gives each worker a GPU of its own, {device.partition(':')[0]} was "
            "expected (CUDA_VISIBLE_DEVICES says which of a machine's GPUs Ray is started with)"
        )


def _terms(work: Work, workers: Workers) -> EncodingPlan:
    """All of the plan that does not depend on the collection, as a worker finds it."""
    import ray

    task = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(find_terms)
    try:
        terms, trouble = ray.get(task.remote(work))
    except ray.exceptions.RayError as error:
        raise EnvironmentProblem(
            f"Ray could not run a worker: {last_line(error)} (is mimo-plugin installed on every machine?)"
        ) from error
    if trouble is not None:
        raise_trouble(trouble)
    return EncodingPlan.model_validate_json(terms)


def _encode_shards(
    work: Work,
    terms: EncodingPlan,
    workers: Workers,
    shards: Shards,
    missing: Sequence[int],
    progress: bool | None,
) -> None:
    """Has the missing shards encoded and writes them, in the order in which they are done."""
    total, left = shards.documents_in(shards.numbers), shards.documents_in(missing)
    done = set()
    with bar(total=total, initial=total - left, what="encoding", unit="docs", enabled=progress) as counter:
        for row in _rows(_dataset(work, terms, workers, shards, missing)) if missing else ():
            refuse_trouble(row)
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
                Encoder,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_args=(work, terms.model_dump_json()),
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
