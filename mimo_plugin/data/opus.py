"""The MIMO paper's parallel texts: eight corpora of OPUS, thirteen languages with English.

They come from the hub or from a folder of downloads. On the hub each corpus is a dataset
`sentence-transformers/parallel-sentences-CORPUS` with a folder `en-XX` for each language. A folder of
downloads holds, at any depth:

- OPUS's own Moses files (`CORPUS.aa-bb.aa` and `CORPUS.aa-bb.bb`), plain, .gz or in a zip of any name,
- Sentence Transformers' lists (`CORPUS-en-XX-train.tsv.gz`), or
- the `en-XX` folders of the hub.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from mimo_plugin.collections.rows import unreadable
from mimo_plugin.core.environment import hub_problem
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.data.sources import DatasetColumns, MosesFiles, PairSource, TsvFile, error_line

HUB = "hub"
LANGUAGES = ("ar", "de", "es", "fr", "hi", "id", "it", "ja", "nl", "pt", "ru", "vi", "zh")
_ANCHOR = "en"
_REPOSITORY = "sentence-transformers/parallel-sentences-"


@dataclass(frozen=True)
class Corpus:
    """A corpus of OPUS.

    Attributes:
        slug: its name in the id of its hub dataset.
        names: other names in files.
        without: languages of the paper for which it has no pairs with English.
    """

    name: str
    slug: str
    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def all_names(self) -> tuple[str, ...]:
        return (self.name, self.slug, *self.names)


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
# Other codes of a language in corpora; the first one found is taken.
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
    """Sources found in OPUS.

    Attributes:
        sources: one for each corpus and language found.
        absent: corpus -> languages that the corpus does not have.
        missing: corpus -> languages that the folder lacks, with `skip_missing`.
    """

    sources: Sequence[PairSource]
    absent: Mapping[str, Sequence[str]]
    missing: Mapping[str, Sequence[str]]

    def summary(self) -> str:
        """The number of sources, and what is missing."""
        lines = [f"OPUS: {len(self.sources)} pairs of a corpus and a language"]
        for title, languages in (
            ("no such texts in the corpus", self.absent),
            ("not here and left out", self.missing),
        ):
            listed = "; ".join(f"{corpus} {' '.join(own)}" for corpus, own in languages.items())
            lines += [f"{title}: {listed}"] if listed else []
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
        corpora: names; none means all eight.
        languages: codes; none means the paper's thirteen.
        skip_missing: continue if the folder lacks texts.

    Raises:
        DataError: the folder lacks texts (all are named) or has some twice; the hub cannot be read.
        UsageError: an unknown corpus, or English as a language.
    """
    chosen = _chosen(corpora, languages)
    on_hub = place == HUB
    if on_hub:
        _require_hub()
    find = _on_hub if on_hub else _Downloads(Path(place).expanduser()).source
    sources: list[PairSource] = []
    absent, missing = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    problems = Problems()
    for corpus, lang in product(chosen, dict.fromkeys(languages or LANGUAGES)):
        with problems.collect():
            source = find(corpus, lang)
            if source is not None:
                sources.append(source)
            else:
                # A language that is not on the hub is not in the corpus.
                (absent if on_hub or lang in corpus.without else missing)[corpus.name].append(lang)
    if not skip_missing:
        problems.extend(
            f"{place}: no {corpus.name} for {' '.join(missing[corpus.name])}, expected "
            f"{corpus.name}.{missing[corpus.name][0]}-{_ANCHOR}.* or the zip with it "
            f"(https://opus.nlpl.eu/{corpus.name}), or {_REPOSITORY}{corpus.slug} of the hub: download them "
            "there, or continue without them (--skip-missing)"
            for corpus in chosen
            if corpus.name in missing
        )
    elif not sources:
        problems.add(f"{place}: no files of OPUS were found, expected such as Europarl.de-en.de")
    problems.raise_any()
    return Opus(sources, absent, missing)


def _chosen(corpora: Sequence[str], languages: Sequence[str]) -> list[Corpus]:
    known = {name.lower(): corpus for corpus in CORPORA for name in corpus.all_names}
    with Problems(UsageError) as problems:
        problems.extend(
            f"unknown corpus {name!r}, expected some of {', '.join(corpus.name for corpus in CORPORA)}"
            for name in corpora
            if name.lower() not in known
        )
        if _ANCHOR in languages:
            problems.add("en is the language of the other side of every pair, expected other languages")
    names = {known[name.lower()].name for name in corpora}
    return [corpus for corpus in CORPORA if not corpora or corpus.name in names]


def _codes(lang: str) -> tuple[str, ...]:
    return (lang, *_CODES.get(lang, ()))


def _columns(lang: str, name: str, config: str | None) -> DatasetColumns:
    return DatasetColumns(lang, _ANCHOR, name, config, "train", "english", "non_english")


def _require_hub() -> None:
    if why := hub_problem():
        raise DataError(
            f"{why}: download the corpora on a machine with a network (hf download --repo-type dataset "
            f"{_REPOSITORY}europarl --local-dir DIR/parallel-sentences-europarl, and so on) and give --opus "
            "DIR"
        )


def _on_hub(corpus: Corpus, lang: str) -> PairSource | None:
    """A corpus's texts in a language; None if the hub's dataset has no folder for it."""
    name = f"{_REPOSITORY}{corpus.slug}"
    config = next((f"en-{code}" for code in _codes(lang) if f"en-{code}" in _hub_folders(name)), None)
    return None if config is None else _columns(lang, name, config)


@cache
def _hub_folders(name: str) -> set[str]:
    from huggingface_hub import HfApi

    try:
        return {Path(one.path).name for one in HfApi().list_repo_tree(name, repo_type="dataset")}
    except Exception as error:
        raise DataError(f"{name}: the hub cannot list its files: {error_line(error)}") from error


class _Downloads:
    """A folder of downloads, listed once; case does not matter in names."""

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise DataError(f"{directory}: no such folder, expected one of OPUS downloads, or --opus {HUB}")
        self._plain = defaultdict[str, list[Any]](list)
        self._zipped = defaultdict[str, list[Any]](list)
        self._folders = defaultdict[str, list[Any]](list)
        try:
            paths = sorted(path for path in directory.rglob("*") if path.name[0] != ".")
        except OSError as error:
            raise DataError(unreadable(error.filename, error)) from error
        for path in paths:
            if path.is_dir():
                # A clone of a hub dataset, or what `hf download --local-dir` makes.
                self._folders[f"{path.parent.name}/{path.name}".lower()].append(path)
            elif path.suffix.lower() == ".zip":
                for member in _members(path):
                    self._zipped[member.name.lower()].append(member)
            else:
                self._plain[path.name.lower()].append(path)

    def source(self, corpus: Corpus, lang: str) -> PairSource | None:
        """A corpus's texts in a language; None if there are none. Raises a DataError for copies."""
        named = list(product(corpus.all_names, _codes(lang), _codes(_ANCHOR)))
        for files, (name, code, anchor) in product((self._plain, self._zipped), named):
            for pair in (f"{anchor}-{code}", f"{code}-{anchor}"):
                texts, anchors = (
                    _only(files, f"{name}.{pair}.{side}", f"{name}.{pair}.{side}.gz")
                    for side in (code, anchor)
                )
                if texts is not None and anchors is not None:
                    return MosesFiles(lang, _ANCHOR, anchors, texts)
        for name, code, anchor in named:
            start = f"{name}-{anchor}-{code}"
            path = _only(
                self._plain, *(f"{start}{end}.tsv{gz}" for end in ("-train", "") for gz in ("", ".gz"))
            )
            if path is not None:
                return TsvFile(lang, _ANCHOR, path)
        for name, code in product((f"parallel-sentences-{corpus.slug}", *corpus.all_names), _codes(lang)):
            folder = _only(self._folders, f"{name}/{_ANCHOR}-{code}")
            if folder is not None:
                return _columns(lang, str(folder), None)
        return None


def _only(files: Mapping[str, Sequence[Any]], *names: str) -> Any:
    found = [path for name in names for path in files.get(name.lower(), ())]
    if len(found) > 1:
        raise DataError(
            f"{found[0]} and {found[1]} hold the same texts, expected only one: move the other elsewhere"
        )
    return found[0] if found else None


def _members(path: Path) -> Iterator[zipfile.Path]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: damaged zip file ({error}): fetch it again") from error
    return (zipfile.Path(archive, name) for name in archive.namelist() if not name.endswith("/"))
