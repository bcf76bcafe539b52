"""Hard negatives of a stage-2 table: passages of other rows that a search for the row's query brings up."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.dataset import MEMORY, Pool, StreamedDocs
from mimo_plugin.collections.records import Doc, check_id
from mimo_plugin.core.artifact import SealedRecord, parse_manifest
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, DataError, Problems, UsageError
from mimo_plugin.core.files import remove_tree, write_text, writing
from mimo_plugin.data.options import NegativesOptions
from mimo_plugin.data.sources import identity_key
from mimo_plugin.data.writers import Made, TableWriter
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.encode import check_checkpoint
from mimo_plugin.indexing.open import AnyIndex, find_indexes
from mimo_plugin.indexing.plan import OF_THE_MACHINE, REMARKS
from mimo_plugin.indexing.search import QUERIES_AT_ONCE, find_hits, load_query_encoder
from mimo_plugin.indexing.settings import IndexOptions, SearchOptions
from mimo_plugin.training.data import (
    DataManifest,
    Format,
    NegativesRecord,
    Table,
    data_directory,
    open_table,
    read_manifest,
)
from mimo_plugin.training.examples import Relevance

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.encoder.options import EncoderOptions

# Folders of finished parts in the output, for a command that resumes; a key of everything that decides them
# follows.
_PARTS = ".mining-"


def mine_negatives(
    table: Path,
    output: Path,
    options: NegativesOptions | None = None,
    encoder_options: "EncoderOptions | None" = None,
    *,
    index: Path | None = None,
    encoder: str | None = None,
) -> Made:
    """Writes a table again with the mined negatives of each row, as passage ids of other rows.

    Queries and passages are compared in the anchor language, which every row has. Each query's hits are
    filtered as in `mine_hard_negatives` of sentence-transformers, see `choose`; rows with one query share
    their negatives. Interrupted work resumes after the last complete part of `QUERIES_AT_ONCE` queries.

    Args:
        table: directory that `mimo data` wrote.
        index: its docids are passage ids of the table, also with a language and a colon before them; hits
            that are not in the table are left out. None builds one of the table's passages with the encoder,
            in `OUTPUT-index`.
        encoder: of the new index; for a given index the query encoder, by default its own.

    Raises:
        UsageError, ArtifactError, ModelError: invalid options, data, index or checkpoint, all together.
        DataError: no negative was found.
    """
    options = options or NegativesOptions()
    manifest, indexes = _check(table, output, options, index, encoder)
    data = open_table(table)
    relevance = Relevance.of(data)
    if not indexes:
        place = output.absolute().with_name(f"{output.absolute().name}-index")
        making = IndexOptions(progress=options.progress)
        indexes = [build_index(_passages(data, relevance), encoder or "", place, making, encoder_options)]
    (searched,) = indexes
    loaded = searched.encoder
    if loaded is None:
        loaded = load_query_encoder(indexes, SearchOptions(encoder=encoder), encoder_options)
    plan = searched.plan.model_dump(mode="json", exclude={*OF_THE_MACHINE, *REMARKS})
    queries = {
        "fingerprint": loaded.fingerprint,
        "prompt": loaded.query_prompt,
        "max_length": loaded.max_length,
        "dtype": loaded.options.dtype,
    }
    source = {"table": data.fingerprint, "rows": manifest.source, "index": plan, "queries": queries}
    writer = TableWriter(
        output,
        anchor=manifest.anchor,
        parameters={**manifest.parameters, **options.parameters()},
        source=source,
        overwrite=options.overwrite,
    )
    done = writer.finished()
    if done is None:
        parts = output / f"{_PARTS}{identity_key({**source, **options.parameters()})}"
        with writer:
            _clean(output, parts)
            found = _Mining(data, relevance, searched, loaded, options).run(parts)
            missed = sum(one is None for one in found)
            counts = _write(data, relevance, found, writer, options)
            writer.negatives = NegativesRecord(encoder=loaded.name, rows=counts, missed=missed)
    _clean(output)
    return Made(done or writer.manifest, new=done is None)


def _check(
    table: Path, output: Path, options: NegativesOptions, index: Path | None, encoder: str | None
) -> tuple[DataManifest, list[AnyIndex]]:
    problems, manifest = Problems(UsageError), None
    indexes: list[AnyIndex] = []
    with problems.collect():
        manifest = read_manifest(table, Format.TABLE)
    if output.resolve() == table.resolve():
        problems.add(f"--output {output} is the table itself, expected another directory")
    else:
        with problems.collect():
            data_directory(output, Format.TABLE).check_output()
    if index is None and encoder is None:
        problems.add("nothing to search with: name an index with --index, or a checkpoint with --encoder")
    with problems.collect():
        check_checkpoint(encoder or "")
    if index is not None:
        with problems.collect():
            indexes = find_indexes([index], options.search_parameters)
    if options.hits <= options.skip + options.negatives:
        problems.add(
            f"--hits {options.hits} cannot hold the query's own passage, --skip {options.skip} others and "
            f"--negatives {options.negatives}: expected at least {options.skip + options.negatives + 1}"
        )
    problems.raise_any()
    if manifest is None:
        raise ArtifactError(f"{table} cannot be read")
    return manifest, indexes


def _clean(output: Path, keep: Path | None = None) -> None:
    """Removes the parts of other work, or all."""
    for folder in output.glob(f"{_PARTS}*"):
        if folder != keep:
            remove_tree(folder)


def _passages(data: Table, relevance: Relevance) -> Pool:
    """The distinct passages in the anchor language as a collection, with the first of their ids."""

    def docs() -> Iterator[Doc]:
        met: set[int] = set()
        ids, anchor = data.dataset.data.column("passage_id"), data.manifest.anchor
        for row, text in enumerate(data.anchors("passages")):
            number = int(relevance.passages[row])
            if number not in met:
                met.add(number)
                yield Doc(check_id(str(ids[row]), f"{data.name}: passage id"), text, anchor)

    return Pool(StreamedDocs(docs, lang=data.manifest.anchor), specs=(f"{MEMORY}{data.fingerprint[:16]}",))


class _Part(SealedRecord):
    """The negatives of consecutive queries; None where a query did not find its own passages."""

    negatives: tuple[tuple[str, ...] | None, ...]


def choose(
    hits: Sequence[tuple[str, int, float]], relevant: Sequence[int], options: NegativesOptions
) -> tuple[str, ...] | None:
    """The negatives of a query, of its hits with the best first.

    A hit is a candidate if its passage is not relevant to the query and its score is at most `max_share` of
    the lowest score of the relevant ones (positive-aware mining, arXiv 2407.15831). Of the candidates, `skip`
    are left out and the next `negatives` are taken. A passage counts once, with its best hit.

    Args:
        hits: passage id, number of the passage, score.
        relevant: numbers of the query's relevant passages; the same may occur twice.

    Returns:
        Passage ids; None if a relevant passage is not among the hits, as nothing is known of its score then.
    """
    best: dict[int, tuple[str, float]] = {}
    for passage_id, number, score in hits:
        best.setdefault(number, (passage_id, score))
    own = [best.pop(number, ("", None))[1] for number in set(relevant)]
    known = [score for score in own if score is not None]
    if len(known) < len(own):
        return None
    lowest = min(known)
    limit = lowest - abs(lowest) * (1 - options.max_share)
    candidates = (passage_id for passage_id, score in best.values() if score <= limit)
    return tuple(islice(candidates, options.skip, options.skip + options.negatives))


class _Mining:
    """Searches the table's distinct queries, part by part."""

    def __init__(
        self,
        data: Table,
        relevance: Relevance,
        searched: AnyIndex,
        encoder: "Encoder",
        options: NegativesOptions,
    ) -> None:
        import numpy as np

        self._data, self._index, self._encoder, self._options = data, searched, encoder, options
        passages = data.dataset.data.column("passage_id").to_pylist()
        self._number_of = dict(zip(passages, relevance.passages.tolist(), strict=True))
        self._relevant, _ = relevance.conflicts()
        # The first row of each query, by the query's number.
        _, self._rows = np.unique(relevance.queries, return_index=True)

    def run(self, folder: Path) -> list[tuple[str, ...] | None]:
        """The negatives of each query number; complete parts in the folder are not searched again.

        Raises:
            DataError: there are none at all.
        """
        with writing(folder):
            folder.mkdir(exist_ok=True)
        found: list[tuple[str, ...] | None] = []
        total = len(self._rows)
        with bar(total=total, what="mining", unit="queries", enabled=self._options.progress) as counter:
            for start in range(0, total, QUERIES_AT_ONCE):
                place = folder / f"{start:09d}.json"
                try:
                    part = parse_manifest(place, _Part, "mined negatives")
                except ArtifactError:
                    part = _Part(negatives=tuple(self._search(start)))
                    write_text(place, part.sealed())
                found += part.negatives
                counter.update(len(part.negatives))
        if not any(found):
            raise DataError(
                f"no negative was found in {self._index.name}: of {total:,} queries, "
                f"{found.count(None):,} have a passage of their own that is not among the hits. See that "
                "docids are the table's passage ids, or give a larger --hits or --max-share"
            )
        return found

    def _search(self, start: int) -> Iterator[tuple[str, ...] | None]:
        rows = self._data.dataset[self._rows[start : start + QUERIES_AT_ONCE].tolist()]
        anchor = self._data.manifest.anchor
        texts = [own[langs.index(anchor)] for langs, own in zip(rows["langs"], rows["queries"], strict=True)]
        queries = [(str(start + place), text) for place, text in enumerate(texts)]
        depth = min(self._options.hits, len(self._index))
        prefixed = self._index.plan.prefixes is not None
        for query, docids, scores in find_hits([self._index], self._encoder, queries, hits=depth):
            named = [docid.partition(":")[2] for docid in docids] if prefixed else docids
            hits = [
                (passage_id, self._number_of[passage_id], score)
                for passage_id, score in zip(named, scores.tolist(), strict=True)
                if passage_id in self._number_of
            ]
            yield choose(hits, self._relevant[int(query)], self._options)


def _write(
    data: Table,
    relevance: Relevance,
    found: Sequence[tuple[str, ...] | None],
    writer: TableWriter,
    options: NegativesOptions,
) -> dict[int, int]:
    """Writes the rows with their negatives; returns number of negatives -> rows."""
    counts: Counter[int] = Counter()
    for reason, languages in data.manifest.dropped.items():
        for lang, count in languages.items():
            writer.drop(reason, lang, count)
    total = data.manifest.rows
    rows: Any = bar(data.dataset, total=total, what="writing", unit="rows", enabled=options.progress)
    for row, query in zip(rows, relevance.queries.tolist(), strict=True):
        texts = dict(zip(row["langs"], zip(row["queries"], row["passages"], strict=True), strict=True))
        negatives = found[query] or ()
        counts[len(negatives)] += 1
        writer.add(row["query_id"], row["passage_id"], texts, negatives)
    return dict(sorted(counts.items()))
