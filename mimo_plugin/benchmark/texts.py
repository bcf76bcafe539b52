"""Sampled texts and named encoders of an analysis."""

import hashlib
import heapq
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.benchmark.settings import Role
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, DataError, Problems
from mimo_plugin.encoder import packaged
from mimo_plugin.evaluation.topics import Topics, load_topics, topic_versions, version_groups
from mimo_plugin.training.run import RECIPE, RunDirectory

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.encoder.options import EncoderOptions


@dataclass(frozen=True)
class SampledTexts:
    """Texts with their languages; the versions of one text are adjacent.

    Attributes:
        ids, texts, languages: (n,) each.
        groups: (n,) equal for the language versions of one text, at most one per language.
        alone: why there are no parallel texts; None if each group has two languages or more.
        left_out: number of texts that are empty or have no known language.
    """

    collections: tuple[str, ...]
    role: Role
    seed: int
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    languages: tuple[str, ...]
    groups: tuple[str, ...]
    alone: str | None
    left_out: int

    @property
    def counts(self) -> dict[str, int]:
        """Language -> number of texts, in alphabetical order."""
        return dict(sorted(Counter(self.languages).items()))

    def first(self, most: int) -> int:
        """Number of rows of the first texts with all versions: at most `most`, but at least one text."""
        if len(self.groups) <= most:
            return len(self.groups)
        end = most
        while end and self.groups[end] == self.groups[end - 1]:
            end -= 1
        return end or self.groups.count(self.groups[0])


def sample_texts(
    pool: Any,
    collections: Sequence[str],
    *,
    role: Role = Role.DOCUMENTS,
    count: int = 1000,
    seed: int = 42,
    progress: bool | None = None,
) -> SampledTexts:
    """Draws texts in all their languages; texts in many languages are preferred.

    `version_groups` finds the versions of a document. Queries are versions if they are topics with the same
    relevant documents and the same id after the language. Without versions, texts are drawn from each
    language separately. The sample depends on ids and seed, not on the order of the collection.

    Documents are streamed, twice if they may be parallel. Memory then holds all ids and languages, otherwise
    only the drawn texts.

    Args:
        pool: an ir_datasets dataset of `Doc`s and `Query`s, see `load`.
        collections: names of its collections.
        count: number of texts, each in all its languages; without parallel texts, number per language.

    Raises:
        DataError: fewer than two texts with a language, or judgments that contradict each other.
    """
    reader = _Reader(pool, role, progress)
    alone = _never_parallel(pool, role)
    rows: list[tuple[str, str, str, str]] = []
    if alone is None:
        topics = load_topics(pool)
        alone = None if role is Role.QUERIES else _never_confirmed(topics)
        if alone is None:
            rows = _parallel(reader, topics, count, seed)
            alone = None if rows else f"no two {role} are versions of one text, confirmed by the judgments"
    if alone is not None:
        rows = _each_language(reader, count, seed)
    if len(rows) < 2:
        raise DataError(
            f"{', '.join(collections)}: {len(rows)} of {reader.left_out + len(rows):,} {role} have both text "
            "and a language, expected two or more: name the language in the collection's files"
        )
    ids, texts, languages, groups = zip(*rows, strict=True)
    return SampledTexts(tuple(collections), role, seed, ids, texts, languages, groups, alone, reader.left_out)


class _Reader:
    """Yields (id, text, language) of the usable texts, in any number of passes.

    left_out: number of other texts in the last pass.
    """

    def __init__(self, pool: Any, role: Role, progress: bool | None) -> None:
        self._read = pool.docs_iter if role is Role.DOCUMENTS else pool.queries_iter
        self.role = role
        self._progress = progress
        self.left_out = 0

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        self.left_out = 0
        for identifier, text, lang in bar(
            self._read(), what="reading", unit=self.role, enabled=self._progress
        ):
            if lang and text.strip():
                yield identifier, text, lang
            else:
                self.left_out += 1


def _never_parallel(pool: Any, role: Role) -> str | None:
    missing = [name for name in ("queries", "qrels") if not getattr(pool, f"has_{name}")()]
    if not missing:
        return None
    return (
        f"the collection has no {' and no '.join(missing)}, which tell {role} that are versions of one text"
    )


def _never_confirmed(topics: Topics) -> str | None:
    """Why no documents can be versions of one text, by the judgments alone; None if some can."""
    for judged in topics.judged:
        seen: set[bytes] = set()
        for docid in judged.docids[judged.relevance > 0].tolist():
            names = {docid, docid.partition(b":")[2] or docid}
            if seen & names:
                return None
            seen |= names
    return (
        "no topic has two versions of a text among its relevant documents, such as de:7 and fi:7: the "
        "collection is not parallel"
    )


def _text_names(role: Role, topics: Topics, ids: Sequence[str], languages: Sequence[str]) -> list[str]:
    """A name for each id, the same for the language versions of one text."""
    if role is Role.DOCUMENTS:
        return version_groups(ids, languages, topics)
    # The blank makes the name differ from every id.
    names = {
        topics.query_ids[position]: f"versions of {topics.query_ids[positions[0]]}"
        for positions in topic_versions(topics)
        for position in positions
    }
    return [names.get(query_id, query_id) for query_id in ids]


def _parallel(reader: _Reader, topics: Topics, count: int, seed: int) -> list[tuple[str, str, str, str]]:
    """(id, text, language, group) of texts in two languages or more, by group and language."""
    ids: list[str] = []
    languages: list[str] = []
    for identifier, _, lang in reader:
        ids.append(identifier)
        languages.append(sys.intern(lang))
    groups = _text_names(reader.role, topics, ids, languages)
    bit = {lang: 1 << number for number, lang in enumerate(dict.fromkeys(languages))}
    spoken: dict[str, int] = {}
    for group, lang in zip(groups, languages, strict=True):
        spoken[group] = spoken.get(group, 0) | bit[lang]
    chosen = heapq.nsmallest(
        count,
        (group for group, bits in spoken.items() if bits.bit_count() > 1),
        key=lambda group: (-spoken[group].bit_count(), _draw(seed, group)),
    )
    place = {group: number for number, group in enumerate(chosen)}
    wanted = {identifier: group for identifier, group in zip(ids, groups, strict=True) if group in place}
    found: dict[tuple[int, str], tuple[str, str, str, str]] = {}
    if wanted:
        for identifier, text, lang in reader:
            if identifier in wanted:
                group = wanted[identifier]
                # Ids such as de:7 and 7 can give two versions in one language.
                found.setdefault((place[group], lang), (identifier, text, lang, group))
    return [row for _, row in sorted(found.items())]


def _each_language(reader: _Reader, count: int, seed: int) -> list[tuple[str, str, str, str]]:
    """(id, text, language, id) of `count` texts per language, languages mixed."""
    # Per language, a heap of the smallest draws so far, with the largest first.
    drawn: dict[str, list[tuple[int, str, str]]] = {}
    for identifier, text, lang in reader:
        heap = drawn.setdefault(lang, [])
        entry = (-_draw(seed, identifier), identifier, text)
        if len(heap) < count:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    entries = [
        (draw, identifier, text, lang) for lang, heap in drawn.items() for draw, identifier, text in heap
    ]
    return [
        (identifier, text, lang, identifier) for _, identifier, text, lang in sorted(entries, reverse=True)
    ]


def _draw(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


class NamedEncoder(NamedTuple):
    """An encoder with its name.

    Attributes:
        label: name in tables and figures.
        checkpoint: see `Encoder`.
        run: its training run, if one was named.
        model: the encoder, if it is loaded already.
    """

    label: str
    checkpoint: str
    run: Path | None = None
    model: "Encoder | None" = None

    def load(self, options: "EncoderOptions | None") -> "Encoder":
        """The encoder, loaded with these options if it is not loaded already. Errors as `Encoder`."""
        from mimo_plugin.encoder.encoder import Encoder

        return self.model or Encoder(self.checkpoint, options)


def file_name(label: str) -> str:
    """A label as a part of file names."""
    return re.sub(r"[^\w.-]+", "-", label)


def parse_encoders(specs: "Sequence[str | Encoder]", *, check: bool = False) -> list[NamedEncoder]:
    """Reads encoders: `NAME=CHECKPOINT`, a checkpoint, or a loaded one.

    A checkpoint is a directory, a hub id, a packaged one, or the directory of a training run. A run means its
    model, an unfinished run its newest checkpoint. Without a NAME, the name is the last part of the
    checkpoint's name.

    Args:
        check: check the files of checkpoints, without loading them.

    Raises:
        ArtifactError: a run without a model and without a checkpoint, or a corrupted run.
        ModelError: files that are not a checkpoint.
        DataError: two encoders with one name. The error holds all problems.
    """
    from mimo_plugin.encoder.checkpoint import check_files

    problems = Problems(DataError)
    encoders: list[NamedEncoder] = []
    for spec in specs:
        with problems.collect():
            encoder = _parse(spec)
            encoders.append(encoder)
            if check and encoder.model is None:
                check_files(packaged.resolve(encoder.checkpoint), encoder.checkpoint)
    # Names that differ only in a slash would share their files.
    first: dict[str, NamedEncoder] = {}
    for encoder in encoders:
        label, checkpoint = encoder.label, encoder.checkpoint
        other = first.setdefault(file_name(label).casefold(), encoder)
        if other is not encoder:
            problems.add(
                f"two encoders are named {label!r} ({other.checkpoint} and {checkpoint}), expected different "
                f"names: give one as NAME=CHECKPOINT, for example {label}-2={checkpoint}"
            )
    problems.raise_any()
    return encoders


def _parse(spec: "str | Encoder") -> NamedEncoder:
    if not isinstance(spec, str):
        return NamedEncoder(_label(spec.name), spec.name, model=spec)
    label, _, checkpoint = spec.partition("=")
    # The name of a directory may hold "=".
    if not checkpoint or not label or Path(spec).exists():
        label, checkpoint = _label(spec), spec
    run = Path(checkpoint)
    if not (run / RECIPE).is_file():
        return NamedEncoder(label, checkpoint)
    directory = RunDirectory(run)
    if directory.finished() is not None:
        return NamedEncoder(label, str(directory.model), run)
    newest = directory.last_checkpoint()
    if newest is None:
        raise ArtifactError(
            f"{run} is a training run that is not finished and has no checkpoint yet, expected a model: run "
            "the `mimo train` command again that was to write it"
        )
    return NamedEncoder(label, str(newest), run)


def _label(checkpoint: str) -> str:
    """The last part of a name; for the model directory of a run, the run's name."""
    path = Path(checkpoint.removeprefix(packaged.PREFIX))
    name = path.name or path.resolve().name
    parent = path.parent.name
    return parent if name == packaged.MODEL and parent else name or checkpoint
