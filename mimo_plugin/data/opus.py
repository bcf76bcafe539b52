"""The MIMO paper's parallel texts by one name: eight corpora of OPUS, thirteen languages with English.

They come from the hub, where each corpus is a dataset `sentence-transformers/parallel-sentences-CORPUS`
with a folder `en-XX` for each language, or from a folder of downloads. In that folder, at any depth, lie
OPUS's own Moses files (`CORPUS.aa-bb.aa` and `CORPUS.aa-bb.bb`, plain, .gz, or in the zip of OPUS whatever
it is called), Sentence Transformers' lists (`CORPUS-en-XX-train.tsv.gz`), or `en-XX` folders of the hub.
"""

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mimo_plugin.collections.rows import unreadable
from mimo_plugin.core.environment import reachable
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.data.sources import DatasetColumns, MosesFiles, TsvFile

HUB = "hub"
LANGUAGES = ("ar", "de", "es", "fr", "hi", "id", "it", "ja", "nl", "pt", "ru", "vi", "zh")
_ANCHOR = "en"
_REPOSITORY = "sentence-transformers/parallel-sentences-"


@dataclass(frozen=True)
class Corpus:
    """Attributes:
    name: OPUS's.
    names: what files may call it as well.
    slug: in the id of its hub dataset.
    without: languages of the paper that it has no pairs with English in.
    """

    name: str
    slug: str
    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


CORPORA = (
    Corpus("Europarl", "europarl", without=("ar", "hi", "id", "ja", "ru", "vi", "zh")),
    Corpus("GlobalVoices", "global-voices", ("Global-Voices",), without=("ja", "vi", "zh")),
    Corpus("JW300", "jw300", without=("zh",)),
    Corpus("News-Commentary", "news-commentary", ("NewsCommentary",), without=("hi", "id", "vi", "zh")),
    Corpus("OpenSubtitles", "opensubtitles", ("OpenSubtitles2018", "OpenSubtitles2024")),
    Corpus("Talks", "talks", ("TED2020",)),
    Corpus("Tatoeba", "tatoeba"),
    Corpus("WikiMatrix", "wikimatrix"),
)
# What corpora call a language besides its usual code; the first that is there is taken.
_CODES = {
    "ar": ("ara",),
    "de": ("deu",),
    "en": ("eng",),
    "es": ("spa",),
    "fr": ("fra",),
    "hi": ("hin",),
    "id": ("ind",),
    "it": ("ita",),
    "ja": ("jpn", "jp"),
    "nl": ("nld",),
    "pt": ("por", "pt_br", "pt-br"),
    "ru": ("rus",),
    "vi": ("vie",),
    "zh": ("zh_cn", "zh-cn", "zhs", "cmn"),
}


@dataclass(frozen=True)
class Opus:
    """Attributes:
    sources: a source for each corpus and language that there is.
    absent: corpus -> languages that it does not have.
    missing: corpus -> languages that it has elsewhere, but not here; only where these may be missing.
    """

    sources: tuple[TsvFile | MosesFiles | DatasetColumns, ...]
    absent: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, tuple[str, ...]]

    def summary(self) -> str:
        """What was taken and what was not, a few lines."""
        lines = [f"OPUS: {len(self.sources)} pairs of a corpus and a language"]
        if self.absent:
            lines.append(f"no such texts in the corpus: {_listed(self.absent)}")
        if self.missing:
            lines.append(f"not here and left out: {_listed(self.missing)}")
        return "\n".join(lines)


def opus_sources(
    place: str,
    *,
    corpora: Sequence[str] = (),
    languages: Sequence[str] = (),
    skip_missing: bool = False,
) -> Opus:
    """The sources of the paper's first stage.

    Args:
        place: a folder of downloads, or "hub".
        corpora: names of those to take; none means all eight.
        languages: codes; none means the paper's thirteen.
        skip_missing: take what is there.

    Raises:
        DataError: texts that a corpus has are not there, with all of them; a text is there twice; the hub
            does not answer.
        UsageError: an unknown corpus, or English as a language.
    """
    chosen = _chosen(corpora, languages)
    wanted = tuple(dict.fromkeys(languages)) or LANGUAGES
    found = _Hub() if place == HUB else _Downloads(Path(place).expanduser())
    sources, problems = [], Problems(DataError)
    absent: dict[str, tuple[str, ...]] = {}
    missing: dict[str, tuple[str, ...]] = {}
    for corpus in chosen:
        without = []
        for lang in wanted:
            try:
                source = found.source(corpus, lang)
            except DataError as error:
                problems.add(str(error))
                continue
            if source is None:
                without.append(lang)
            else:
                sources.append(source)
        # On the hub everything is there that there is.
        gone = [lang for lang in without if place == HUB or lang in corpus.without]
        here = [lang for lang in without if lang not in gone]
        absent |= {corpus.name: tuple(gone)} if gone else {}
        missing |= {corpus.name: tuple(here)} if here else {}
    if not skip_missing:
        problems.extend(
            f"{place}: no {corpus.name} for {' '.join(missing[corpus.name])}, expected "
            f"{corpus.name}.{missing[corpus.name][0]}-{_ANCHOR}.* or the zip with it "
            f"(https://opus.nlpl.eu/{corpus.name}), or {_REPOSITORY}{corpus.slug} of the hub: download them "
            "there, or go on with what is there (--skip-missing)"
            for corpus in chosen
            if corpus.name in missing
        )
    elif not sources:
        problems.add(f"{place}: nothing of OPUS is there, expected files such as Europarl.de-en.de")
    problems.raise_any()
    return Opus(tuple(sources), absent, missing)


def _chosen(corpora: Sequence[str], languages: Sequence[str]) -> list[Corpus]:
    problems = Problems(UsageError)
    known = {name.lower(): corpus for corpus in CORPORA for name in _names(corpus)}
    for name in corpora:
        if name.lower() not in known:
            problems.add(
                f"unknown corpus {name!r}, expected some of {', '.join(corpus.name for corpus in CORPORA)}"
            )
    if _ANCHOR in languages:
        problems.add("en is the language of the other side of every pair, expected other languages")
    problems.raise_any()
    names = {known[name.lower()].name for name in corpora}
    return [corpus for corpus in CORPORA if not corpora or corpus.name in names]


def _names(corpus: Corpus) -> tuple[str, ...]:
    return (corpus.name, corpus.slug, *corpus.names)


def _codes(lang: str) -> tuple[str, ...]:
    return (lang, *_CODES.get(lang, ()))


def _listed(languages: Mapping[str, Iterable[str]]) -> str:
    return "; ".join(f"{corpus} {' '.join(own)}" for corpus, own in languages.items())


class _Hub:
    """The hub's datasets, each asked once for its folders."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self._folders: dict[str, set[str]] = {}
        if constants.HF_HUB_OFFLINE or not reachable([constants.ENDPOINT]):
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub does not answer"
            raise DataError(
                f"{why}: fetch the corpora where there is a network (hf download --repo-type dataset "
                f"{_REPOSITORY}europarl --local-dir DIR/parallel-sentences-europarl, and so on) and give "
                "--opus DIR"
            )

    def source(self, corpus: Corpus, lang: str) -> DatasetColumns | None:
        """The texts of a corpus in a language; None where it has none."""
        name = f"{_REPOSITORY}{corpus.slug}"
        if name not in self._folders:
            self._folders[name] = _folders(name)
        code = next((code for code in _codes(lang) if f"{_ANCHOR}-{code}" in self._folders[name]), None)
        return None if code is None else _columns(lang, name, f"{_ANCHOR}-{code}")


def _folders(name: str) -> set[str]:
    from huggingface_hub import HfApi

    try:
        return {Path(one.path).name for one in HfApi().list_repo_tree(name, repo_type="dataset")}
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataError(f"{name}: the hub does not tell what is in it: {reason}") from error


def _columns(lang: str, name: str, config: str | None) -> DatasetColumns:
    return DatasetColumns(lang, _ANCHOR, name, config, "train", "english", "non_english")


class _Downloads:
    """A folder of downloads, looked through once; names are compared without regard to case."""

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise DataError(f"{directory}: no such folder, expected one of OPUS downloads, or --opus {HUB}")
        self._plain: dict[str, list[Any]] = {}
        self._zipped: dict[str, list[Any]] = {}
        self._folders: dict[str, list[Any]] = {}
        try:
            paths = sorted(path for path in directory.rglob("*") if path.name[0] != ".")
        except OSError as error:
            raise DataError(unreadable(error.filename, error)) from error
        for path in paths:
            if path.is_dir():
                # A clone of a hub dataset, or what `hf download --local-dir` makes.
                self._folders.setdefault(f"{path.parent.name}/{path.name}".lower(), []).append(path)
            elif path.suffix.lower() == ".zip":
                for member in _members(path):
                    self._zipped.setdefault(member.name.lower(), []).append(member)
            else:
                self._plain.setdefault(path.name.lower(), []).append(path)

    def source(self, corpus: Corpus, lang: str) -> TsvFile | MosesFiles | DatasetColumns | None:
        """The texts of a corpus in a language; None where nothing is there.

        Raises:
            DataError: they are there twice.
        """
        for files in (self._plain, self._zipped):
            for name, code, anchor in product(_names(corpus), _codes(lang), _codes(_ANCHOR)):
                for pair in (f"{anchor}-{code}", f"{code}-{anchor}"):
                    texts, anchors = (
                        _only(files, f"{name}.{pair}.{side}", f"{name}.{pair}.{side}.gz")
                        for side in (code, anchor)
                    )
                    if texts is not None and anchors is not None:
                        return MosesFiles(lang, _ANCHOR, anchors, texts)
        for name, code, anchor in product(_names(corpus), _codes(lang), _codes(_ANCHOR)):
            start = f"{name}-{anchor}-{code}"
            names = (f"{start}{end}.tsv{gz}" for end in ("-train", "") for gz in ("", ".gz"))
            path = _only(self._plain, *names)
            if path is not None:
                return TsvFile(lang, _ANCHOR, path)
        for name, code in product((f"parallel-sentences-{corpus.slug}", *_names(corpus)), _codes(lang)):
            folder = _only(self._folders, f"{name}/{_ANCHOR}-{code}")
            if folder is not None:
                return _columns(lang, str(folder), None)
        return None


def _only(files: Mapping[str, Sequence[Any]], *names: str) -> Any:
    found = [path for name in names for path in files.get(name.lower(), ())]
    if len(found) > 1:
        raise DataError(
            f"{found[0]} and {found[1]} hold the same texts, expected them once: move one of them elsewhere"
        )
    return found[0] if found else None


def _members(path: Path) -> Iterator[zipfile.Path]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: is no whole zip file ({error}): fetch it again") from error
    for name in archive.namelist():
        if not name.endswith("/"):
            yield zipfile.Path(archive, name)
