"""The documents of a `path:` folder, in its two layouts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mimo_plugin.collections.faults import Faults
from mimo_plugin.collections.jsonlines import get_id, get_lang, get_optional, get_text, read_objects
from mimo_plugin.collections.records import Doc, check_id
from mimo_plugin.collections.streaming import StreamedDocs
from mimo_plugin.errors import DataError


class BeirDoc(NamedTuple):
    """A document of a BEIR folder; `title` and `lang` are "" where the record has none."""

    doc_id: str
    title: str
    text: str
    lang: str

    def default_text(self) -> str:
        """Title and text, joined as ir_datasets joins those of BEIR; the text alone without a title."""
        return f"{self.title} {self.text}" if self.title else self.text


# Two loads of one corpus are equal: a pool sees that `path:DIR#dev` and `path:DIR#test` share documents.
@dataclass(frozen=True)
class BeirDocs(StreamedDocs):
    """Attributes:
    corpus: `corpus.jsonl`, plain or gzipped.
    """

    corpus: Path

    def docs_cls(self) -> type[BeirDoc]:
        return BeirDoc

    def docs_path(self, force: bool = True) -> str:
        return str(self.corpus)

    def stream(self) -> Iterator[BeirDoc]:
        with Faults() as faults:
            yield from faults.convert(read_objects(self.corpus, faults), self._doc)

    def _doc(self, numbered: tuple[int, dict[str, Any]]) -> BeirDoc:
        number, record = numbered
        where = f"{self.corpus}:{number}"
        return BeirDoc(
            get_id(record, "_id", where),
            get_optional(record, "title", where),
            get_text(record, "text", where),
            get_lang(record, where),
        )


@dataclass(frozen=True)
class PaperDocs(StreamedDocs):
    """Attributes:
    corpus: `corpus.jsonl`, plain or gzipped, with objects `{doc_id: {"text", "lang"}}`.
    """

    corpus: Path

    def docs_path(self, force: bool = True) -> str:
        return str(self.corpus)

    def stream(self) -> Iterator[Doc]:
        with Faults() as faults:
            items = (
                (f"{self.corpus}:{number}", doc_id, fields)
                for number, record in read_objects(self.corpus, faults)
                for doc_id, fields in record.items()
            )
            yield from faults.convert(items, self._doc)

    def _doc(self, item: tuple[str, str, Any]) -> Doc:
        where, doc_id, fields = item
        check_id(doc_id, f"{where}: docid")
        if not isinstance(fields, dict):
            raise DataError(
                f"{where}: docid {doc_id!r} has a value of type {type(fields).__name__}, expected an "
                "object with 'text' and 'lang'"
            )
        return Doc(doc_id, get_text(fields, "text", where), get_lang(fields, where))
