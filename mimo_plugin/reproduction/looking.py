"""The pass over a part's documents before anything is encoded, and a note of it for the next time."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mimo_plugin.collections.survey import Survey, survey
from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import make_parent, write_text
from mimo_plugin.manifests import SealedRecord, parse_manifest
from mimo_plugin.reproduction.selection import Selected, select, selected_pool

FORMAT: Final = "mimo-reproduction-survey"
_SAMPLE = 256


class Note(SealedRecord):
    """What a pass over a collection found.

    Attributes:
        documents, empty, languages, fingerprint, copies, repeated: see `Survey`.
        text_bytes: of all documents, as UTF-8.
        sample: texts drawn evenly, to measure the speed of an encoder with.
        docids: of a subset; None is all.
        judged: judged docids, where languages or documents were chosen.
    """

    format: Literal["mimo-reproduction-survey"] = FORMAT
    format_version: Literal[1] = 1
    documents: int
    empty: int
    languages: dict[str, int]
    fingerprint: str
    text_bytes: int
    sample: tuple[str, ...]
    docids: tuple[str, ...] | None
    judged: tuple[str, ...] | None
    judged_count: int | None
    copies: int = 0
    repeated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """Attributes:
    pool: the documents, queries and qrels that were chosen.
    survey: of these documents.
    text_bytes: of their texts.
    sample: some of their texts.
    judged: judged documents in a subset; 0 where none was made.
    """

    pool: Any
    survey: Survey
    text_bytes: int
    sample: tuple[str, ...]
    judged: int


def look(
    pool: Any,
    place: Path,
    *,
    doc_languages: frozenset[str] | None,
    query_languages: frozenset[str] | None,
    distractors: int | None,
    seed: int,
    progress: bool | None,
) -> Looked:
    """Chooses and surveys documents, or reads what `place` says of an earlier time.

    Args:
        place: file without its suffix; its name stands for all that decides what is found.

    Raises:
        DataError: the documents are not as they must be.
    """
    file = place.with_name(f"{place.name}.json")
    chosen = doc_languages is not None or distractors is not None
    note = _read(file)
    if note is None:
        selected = (
            select(pool, languages=doc_languages, distractors=distractors, seed=seed, progress=progress)
            if chosen
            else None
        )
        part = _part(pool, doc_languages, query_languages, selected)
        watched = _Watched(part, seed)
        found = survey(watched, progress=progress)
        note = Note(
            documents=found.documents,
            empty=found.empty,
            languages=found.languages,
            fingerprint=found.fingerprint,
            text_bytes=watched.text_bytes,
            sample=tuple(watched.sample),
            docids=None if selected is None or selected.docids is None else tuple(sorted(selected.docids)),
            judged=None if selected is None else tuple(sorted(selected.judged)),
            judged_count=None if selected is None else selected.judged_count,
            copies=found.copies,
            repeated=tuple(sorted(found.repeated)),
        )
        make_parent(file)
        write_text(file, note.sealed())
    selected = None
    if note.judged is not None:
        docids = None if note.docids is None else frozenset(note.docids)
        selected = Selected(docids, frozenset(note.judged), note.judged_count or 0, 0)
    return Looked(
        _part(pool, doc_languages, query_languages, selected),
        Survey(
            note.documents,
            note.empty,
            note.languages,
            note.fingerprint,
            note.copies,
            frozenset(note.repeated),
        ),
        note.text_bytes,
        note.sample,
        note.judged_count or 0,
    )


def _part(
    pool: Any,
    doc_languages: frozenset[str] | None,
    query_languages: frozenset[str] | None,
    selected: Selected | None,
) -> Any:
    return pool if selected is None else selected_pool(pool, doc_languages, query_languages, selected)


def _read(file: Path) -> Note | None:
    """An earlier note; None where there is none, or one that is damaged: it is made again."""
    try:
        return parse_manifest(file, Note, "a survey")
    except ArtifactError:
        return None


class _Watched:
    """A collection whose documents are counted in bytes and sampled while somebody else reads them."""

    def __init__(self, pool: Any, seed: int) -> None:
        self._pool = pool
        self._random = random.Random(seed)
        self.text_bytes = 0
        self.sample: list[str] = []

    def docs_iter(self) -> Iterator[Any]:
        self.text_bytes = 0
        self.sample = []
        for number, doc in enumerate(self._pool.docs_iter()):
            self.text_bytes += len(doc.text.encode("utf-8", "surrogatepass"))
            if number < _SAMPLE:
                self.sample.append(doc.text)
            elif (place := self._random.randrange(number + 1)) < _SAMPLE:
                self.sample[place] = doc.text
            yield doc
