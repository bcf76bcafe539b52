"""What our own sources share: documents that are streamed and never stored a second time."""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any

from ir_datasets.formats import BaseDocs
from ir_datasets.indices import Docstore

from mimo_plugin.collections.records import Doc


class DocsIterator:
    """Documents in order, and, as ir_datasets has it, slices: `docs_iter()[10:20]`."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start
        self._iterator = start()

    def __iter__(self) -> "DocsIterator":
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return islice(self._start(), key.start, key.stop, key.step)
        for doc in islice(self._start(), key, None):
            return doc
        raise IndexError(f"no document number {key}")


class StreamedDocstore(Docstore):
    """Looks documents up by reading the collection until all are found: nothing is written anywhere."""

    def __init__(self, docs: "StreamedDocs") -> None:
        super().__init__(docs.docs_cls())
        self._docs = docs

    def get_many_iter(self, doc_ids: Iterable[str]) -> Iterator[Any]:
        wanted = set(doc_ids)
        for doc in self._docs.stream() if wanted else ():
            if doc.doc_id in wanted:
                wanted.discard(doc.doc_id)
                yield doc
                if not wanted:
                    return


class StreamedDocs(BaseDocs):
    """Documents of a source that `stream` reads from the start each time it is called."""

    def stream(self) -> Iterator[Any]:
        raise NotImplementedError

    def docs_iter(self) -> DocsIterator:
        return DocsIterator(self.stream)

    def docs_cls(self) -> type[Any]:
        return Doc

    def docs_store(self, field: str = "doc_id", options: Any = None) -> Docstore:
        if field != "doc_id":
            raise ValueError(f"documents are looked up by doc_id, not by {field}")
        return StreamedDocstore(self)

    def docs_count(self) -> int | None:
        return None  # unknown before the collection has been read


class DistinctDocs(StreamedDocs):
    """Args:
    collection: has `docs_iter`.
    repeated: docids of which the first record is taken alone.
    """

    def __init__(self, collection: Any, repeated: Collection[str]) -> None:
        self._collection = collection
        self._repeated = repeated

    def stream(self) -> Iterator[Any]:
        met = set()
        for doc in self._collection.docs_iter():
            if doc.doc_id in self._repeated:
                if doc.doc_id in met:
                    continue
                met.add(doc.doc_id)
            yield doc
