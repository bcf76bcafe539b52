"""Loads vectors into a collection of Milvus."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, UsageError
from mimo_plugin.indexing.milvus import (
    BEGUN,
    EXACT,
    FINISHED,
    LITE_INDEXES,
    LONGEST_TEXT,
    ROWS,
    Address,
    CollectionManifest,
    Connection,
    Content,
    State,
    count,
    pairs,
    reporting,
    state_of,
)
from mimo_plugin.indexing.plan import EncodingPlan
from mimo_plugin.indexing.vectors import VectorBatch

# Bytes of vectors in a request.
_BYTES = 16 << 20


def load(
    address: Address,
    plan: EncodingPlan,
    languages: dict[str, int],
    empty_documents: int | None,
    batches: Callable[[Callable[[int], object]], Iterator[VectorBatch]],
    *,
    index_type: str = EXACT,
    resume: bool = True,
    progress: bool | None = None,
) -> bool:
    """Loads vectors into a new collection, and reads them back. A load that was cut short goes on.

    Args:
        plan, languages, empty_documents: of the vectors.
        batches: called twice for all documents in order; it tells its argument how many are done.
        index_type: see `ExportOptions`.
        resume: go on with a load that was cut short; otherwise the collection is emptied first.

    Returns:
        Whether the load was complete before the call.

    Raises:
        ArtifactError: the collection holds something else, or not what was sent.
        EnvironmentProblem: Milvus is missing, does not answer or refuses.
    """
    kind, comma, parameters = index_type.partition(",")
    index_type = f"{kind.strip().upper()}{comma}{parameters}"
    pairs(parameters, "--index-type")
    if address.directory is not None and kind.strip().upper() not in LITE_INDEXES:
        raise UsageError(
            f"--index-type {kind}: Milvus Lite does not have it, expected one of {', '.join(LITE_INDEXES)}"
        )
    connection = Connection.to(address)
    client, name = connection.client, address.collection
    with reporting(address, "run the command again: it goes on"):
        state = state_of(connection, address)
        if state.exists and state.begun is None:
            raise ArtifactError(
                f"{address} is a collection that `mimo export` did not make: name another one after #"
            )
        if state.finished is not None and resume:
            _refuse(address, [*plan.differences(state.finished.plan), *_other_index(index_type, state)])
            return True
        total = plan.documents
        content = Content()
        with bar(total=total, what="reading", unit="docs", enabled=progress) as counter:
            for batch in batches(counter.update):
                content.add(batch)
                _check_texts(address, batch)
        manifest = CollectionManifest(
            plan=plan,
            languages=languages,
            empty_documents=empty_documents,
            index=index_type,
            content=content.digest,
            longest=content.longest,
            files={},
        )
        if state.exists and not resume:
            client.drop_collection(name)
            state = State(False)
        if state.begun is not None:
            unlike = [] if state.begun.content == manifest.content else ["its vectors are others"]
            _refuse(address, [*plan.differences(state.begun.plan), *_other_index(index_type, state), *unlike])
        _make(client, name, manifest, exists=state.exists)
        rows = max(1, min(ROWS, _BYTES // (4 * plan.dimension)))
        # Requests are sent one after the other: what is missing are the last ones, and parts of one.
        done = max(0, count(client, name) - rows)
        with bar(total=total, what="loading", unit="docs", enabled=progress) as counter:
            for start, batch in _from(batches(counter.update), done):
                for at in range(0, len(batch.docids), rows):
                    client.upsert(name, _records(start + at, batch.rows(at, at + rows)))
        client.flush(name)
        _verify(client, address, manifest, rows, progress)
        client.alter_collection_properties(name, {FINISHED: manifest.sealed()})
    return False


def _refuse(address: Address, differences: Sequence[str]) -> None:
    if differences:
        raise ArtifactError(
            f"{address} holds vectors of another export: {'; '.join(differences)}. Name another collection "
            "after #, give the same vectors and options, or start over with --no-resume"
        )


def _other_index(index_type: str, state: State) -> list[str]:
    there = state.begun.index if state.begun else index_type
    return [] if there == index_type else [f"index type is {index_type!r}, there it is {there!r}"]


def _check_texts(address: Address, batch: VectorBatch) -> None:
    for docid in batch.docids:
        if len(docid) * 4 > LONGEST_TEXT and len(docid.encode()) > LONGEST_TEXT:
            raise ArtifactError(
                f"{address}: docid {docid[:40]}... has more than the {LONGEST_TEXT} bytes that Milvus takes"
            )


def _make(client: Any, name: str, manifest: CollectionManifest, *, exists: bool) -> None:
    """Makes what is not there yet of an empty collection and its index, and has Milvus load it."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("docid", DataType.VARCHAR, is_primary=True, max_length=LONGEST_TEXT)
    schema.add_field("lang", DataType.VARCHAR, max_length=LONGEST_TEXT)
    schema.add_field("row", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=manifest.plan.dimension)
    if not exists:
        made = {BEGUN: manifest.sealed()}
        client.create_collection(name, schema=schema, properties=made, consistency_level="Strong")
    if not client.list_indexes(name):
        kind, _, parameters = manifest.index.partition(",")
        index = client.prepare_index_params()
        index.add_index("vector", index_type=kind, metric_type="IP", params=pairs(parameters, "--index-type"))
        client.create_index(name, index)
    client.load_collection(name)


def _from(batches: Iterator[VectorBatch], done: int) -> Iterator[tuple[int, VectorBatch]]:
    """Batches with the row of their first document, from row `done` on."""
    start = 0
    for batch in batches:
        skip = max(0, done - start)
        if skip < len(batch.docids):
            yield start + skip, batch.rows(skip, len(batch.docids))
        start += len(batch.docids)


def _records(start: int, batch: VectorBatch) -> list[dict[str, Any]]:
    return [
        {"docid": docid, "lang": lang, "row": row, "vector": vector}
        for row, (docid, lang, vector) in enumerate(zip(*batch, strict=True), start)
    ]


def _verify(
    client: Any, address: Address, manifest: CollectionManifest, rows: int, progress: bool | None
) -> None:
    """Reads everything back; raises an ArtifactError where it is not what was sent."""
    total, content = manifest.plan.documents, Content()
    again = "another program may have written to it; start over with --no-resume"
    if (there := count(client, address.collection)) != total:
        raise ArtifactError(f"{address} holds {there} documents, expected {total}: {again}")
    with bar(total=total, what="checking", unit="docs", enabled=progress) as counter:
        for start in range(0, total, rows):
            stop = min(start + rows, total)
            found = client.query(
                address.collection,
                filter=f"row >= {start} and row < {stop}",
                output_fields=["docid", "lang", "row", "vector"],
                limit=rows,
            )
            found = sorted(found, key=lambda record: int(record["row"]))
            if [record["row"] for record in found] != list(range(start, stop)):
                raise ArtifactError(
                    f"{address} holds {len(found)} documents with the numbers {start} to {stop - 1}, "
                    f"expected {stop - start}: {again}"
                )
            vectors = np.array([record["vector"] for record in found], dtype=np.float32)
            docids, langs = ([record[field] for record in found] for field in ("docid", "lang"))
            content.add(VectorBatch(docids, langs, vectors))
            counter.update(stop - start)
    if content.digest != manifest.content:
        raise ArtifactError(f"{address} holds other vectors, docids or languages than were sent: {again}")
