"""Opens collections by name, and checks that their files are available."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mimo_plugin.collections.dataset import MEMORY
from mimo_plugin.collections.folder import (
    FOLDER_PREFIX,
    MTEB_PARTS,
    find_parts,
    judged_ids,
    load_file,
    load_folder,
    local_path,
    part_names,
)
from mimo_plugin.collections.packaged import register_sample
from mimo_plugin.collections.reading import PARTS, offline_problem
from mimo_plugin.core.environment import hub_problem
from mimo_plugin.core.errors import DataError, Problems, near

HUB_PREFIX = "hub:"
_SUFFIXES = {".tsv", ".txt", ".trec", ".qrels", ".gz", ".jsonl"}


def open_collection(spec: str) -> Any:
    """Opens a collection without reading it; only a `hub:` folder is downloaded.

    Args:
        spec: an ir_datasets id, `path:DIR`, `path:DIR#SPLIT`, `hub:OWNER/NAME[@REVISION][/FOLDER][#SPLIT]`,
            a packaged id, or a file of topics or qrels.

    Returns:
        An ir_datasets dataset.

    Raises:
        DataError: the collection does not exist, or is only the parent of others.
    """
    if spec.startswith(FOLDER_PREFIX):
        return load_folder(spec)
    if spec.startswith(HUB_PREFIX):
        return load_folder(folder_spec(spec))
    if spec.startswith(MEMORY):
        raise DataError(
            f"{spec}: a collection in memory cannot be opened by name: pass the collection itself, or write "
            f"it to a folder and name that, {FOLDER_PREFIX}DIR"
        )
    path = local_path(spec)
    if path is not None and path.is_file():
        return load_file(path)
    import ir_datasets

    register_sample()
    try:
        dataset = ir_datasets.load(spec)
    except KeyError:
        raise DataError(_unknown(spec, list(ir_datasets.registry))) from None
    if not any(map(dataset.has, PARTS)):
        children = [name for name in ir_datasets.registry if name.startswith(f"{spec}/")]
        shown = ", ".join(children[:6]) + (", ..." if len(children) > 6 else "")
        raise DataError(f"{spec}: holds no documents, queries or qrels of its own, expected one of {shown}")
    return _repaired(spec, dataset)


def _repaired(spec: str, dataset: Any) -> Any:
    """Repairs NeuCLIR 2023 by filtering its topics by its own judgments.

    ir_datasets 0.6.3 filters them by the judgments of 2022, which leaves none (allenai/ir_datasets#292).
    """
    from ir_datasets import Dataset
    from ir_datasets.datasets.base import FilteredQueries
    from ir_datasets.util import Lazy

    every = re.fullmatch(r"neuclir/1/(fa|ru|zh)/trec-2023", spec) and getattr(
        dataset.queries_handler(), "_queries_handler", None
    )
    if not every:
        return dataset
    qrels = dataset.qrels_handler()
    judged = Lazy(lambda: {qrel.query_id for qrel in qrels.qrels_iter()})
    return Dataset(dataset.docs_handler(), FilteredQueries(every, judged, mode="include"), qrels)


def documents_id(spec: str) -> str:
    """The id of a registered collection's documents: `miracl/de` for `miracl/de/dev`."""
    import ir_datasets

    if not ir_datasets.registry[spec].has_docs():
        return spec
    return str(ir_datasets.docs_parent_id(spec))


def _unknown(spec: str, known: list[str]) -> str:
    message = (
        f"{spec!r}: unknown collection, expected an ir_datasets id, path:DIR, hub:OWNER/NAME or a packaged id"
    )
    if local_path(spec):
        return f"{message}; for the folder write {FOLDER_PREFIX}{spec}"
    if Path(spec).suffix in _SUFFIXES:
        return f"{message}, or a file of topics or qrels, but there is no such file: check the path"
    # Names with the same parent come first: miracl/de/devel -> miracl/de/dev.
    parent, _, _ = spec.rpartition("/")
    beside = [name for name in known if parent and name.startswith(f"{parent}/")]
    similar = near(spec, beside) or near(spec, known)
    return f"{message}{similar or '; `mimo collections` lists them'}"


FORM = "hub:OWNER/NAME[@REVISION][/FOLDER]"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_SPEC = re.compile(
    rf"hub:(?P<repository>{_WORD}/{_WORD})(@(?P<revision>{_WORD}))?"
    rf"(/(?P<folder>{_WORD}(/{_WORD})*))?/?(#(?P<split>[^#/]+))?"
)


@dataclass(frozen=True)
class HubSpec:
    """A parsed `hub:` name.

    Attributes:
        repository: OWNER/NAME.
        revision: branch, tag or commit; None is the main branch.
        folder: relative to the repository's top, which is "".
        split: of the qrels, if given.
    """

    repository: str
    revision: str | None
    folder: str
    split: str | None = None

    @property
    def collection_id(self) -> str:
        """A prefix for pooled ids."""
        return (self.folder or self.repository).rpartition("/")[2]

    @property
    def key(self) -> str:
        """The spec without its split."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB_PREFIX}{self.repository}{revision}{'/' if self.folder else ''}{self.folder}"


def parse_hub(spec: str) -> HubSpec:
    """Parses a `hub:` name; raises a DataError if it is invalid."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise DataError(f"{spec}: expected {FORM}, such as hub:owner/benchmarks/belebele")
    return HubSpec(found["repository"], found["revision"], found["folder"] or "", found["split"])


def folder_spec(spec: str) -> str:
    """The `path:` name of a hub folder, which is downloaded unless it is in the local cache.

    A missing folder may exist under a similar name, see `matching_folders`, or be a subset of a folder in
    MTEB's layout.

    Raises:
        DataError: the repository or folder does not exist, or cannot be downloaded now.
    """
    hub = parse_hub(spec)
    snapshot, folder = _fetched(hub.repository, hub.revision, hub.folder)
    return f"{FOLDER_PREFIX}{snapshot / folder}{f'#{hub.split}' if hub.split else ''}"


def found_folder(spec: str) -> str:
    """The folder found for a name, relative to the repository's top; its name may differ.

    Raises: as `folder_spec`.
    """
    hub = parse_hub(spec)
    return _fetched(hub.repository, hub.revision, hub.folder)[1]


# Cached, so that all of one command reads the same revision.
@cache
def _fetched(repository: str, revision: str | None, folder: str) -> tuple[Path, str]:
    """The snapshot, and the folder or subset found in it."""
    from huggingface_hub import HfApi, snapshot_download

    hub = HubSpec(repository, revision, folder)
    offline = hub_problem()

    def fetch(patterns: list[str] | None) -> Path:
        return Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=patterns,
                local_files_only=offline is not None,
            )
        )

    def is_there(name: str) -> bool:
        place = snapshot / name
        return place.is_dir() or bool(find_parts(place.parent, place.name))

    caused: Exception | None = None
    try:
        snapshot = fetch([f"{folder}/*"] if folder else None)
        # Online, files of a subset in the cache may be incomplete.
        if not folder or (snapshot / folder).is_dir() or (offline and is_there(folder)):
            return snapshot, folder
        if offline:
            files = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*")]
        else:
            files = HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
        found, patterns = _alike(files, hub)
        if found and not offline:
            fetch(patterns)
        if found and is_there(found):
            return snapshot, found
        reason = f"the repository has no folder {folder}, expected one with corpus.jsonl in it"
    except DataError:
        raise
    except Exception as error:
        caused = error
        shown = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        reason = f"cannot be fetched from the hub: {shown}"
    raise DataError(_not_here(hub, offline) if offline else f"{hub.key}: {reason}") from caused


def _alike(files: list[str], hub: HubSpec) -> tuple[str, list[str]]:
    """A folder with a similar name and the patterns of its files; "" without one.

    Raises:
        DataError: there are several such folders.
    """
    parent, slash, subset = hub.folder.rpartition("/")
    stems = [f"{parent}{slash}{stem}" for part in MTEB_PARTS for stem in part_names(subset, part)]
    tables = [file for file in files if any(file.startswith((f"{stem}.", f"{stem}/")) for stem in stems)]
    if tables:
        return hub.folder, tables
    corpora = (file.rpartition("/") for file in files)
    folders = [place for place, _, file in corpora if place and file.startswith("corpus.")]
    found = matching_folders(folders, hub.folder)
    if len(found) > 1:
        raise DataError(
            f"{hub.key}: does not exist, and {len(found)} folders have similar names ({', '.join(found)}), "
            "expected one: name it"
        )
    return (found[0], [f"{found[0]}/*"]) if found else ("", [])


def _not_here(hub: HubSpec, why: str) -> str:
    options = f" --revision {hub.revision}" if hub.revision else ""
    # A folder at the top may have another name there, or be a subset in several folders.
    options += f" --include '{hub.folder}/*'" if "/" in hub.folder else ""
    return (
        f"{hub.key}: not in the local cache, and {why}: download it on a machine with a network (hf download "
        f"--repo-type dataset {hub.repository}{options}) and give its folder as {FOLDER_PREFIX}DIR"
    )


# The MIMO paper's release with queries in every language.
_PREFERRED = "MMLIR"
_SPLITS = ("test", "", "dev")
_NAME = re.compile(r"(?P<stem>.+?)([-_. ](?P<split>test|dev))?", re.ASCII)


def matching_folders(folders: Iterable[str], name: str) -> list[str]:
    """The folders that fit a name best; several if they are equally good.

    Folders fit if their names are equal except for case, punctuation, a version and a final `_test` or
    `_dev`. They lie at the name's place, or one level below. The name itself ranks first, then folders at its
    place, then those in `MMLIR`, then others; ties are broken by `_test` first and `_dev` last.

    Args:
        folders: of a directory, relative to it, with `/`.
    """
    parent, _, last = name.rpartition("/")
    ranked: dict[tuple[int, int], list[str]] = {}
    for folder in sorted(set(folders)):
        within = folder.removeprefix(f"{parent}/") if parent else folder
        above, _, own = within.rpartition("/")
        stem, split = _stem(own)
        if (parent and within == folder) or "/" in above or stem != _stem(last)[0]:
            continue
        # Unrelated data may have a folder with such a name.
        if last.casefold() in _SPLITS and folder != name:
            continue
        place = 0 if folder == name else 1 if not above else 2 if above == _PREFERRED else 3
        ranked.setdefault((place, _SPLITS.index(split)), []).append(folder)
    return ranked[min(ranked)] if ranked else []


def _stem(name: str) -> tuple[str, str]:
    """The common part of equivalent names, and the split."""
    found = _NAME.fullmatch(name.casefold())
    if found is None:
        return name, ""
    return re.sub(r"[-_. ]?v[0-9]+$|[-_. ]", "", found["stem"]), found["split"] or ""


def require(specs: Sequence[str], *, docs: bool = False, queries: bool = False, qrels: bool = False) -> None:
    """Checks that all collections exist and have the parts, with files here or available for download.

    Raises:
        DataError: with all problems of all collections.
    """
    asked = dict(zip(PARTS, (docs, queries, qrels), strict=True))
    problems = Problems()
    for spec in dict.fromkeys(specs):
        with problems.collect():
            dataset = open_collection(spec)
            for part in (part for part in PARTS if asked[part]):
                handler = getattr(dataset, f"{part}_handler")() if dataset.has(part) else None
                if handler is None or getattr(handler, "read", None) is judged_ids:
                    name = PARTS[part]
                    problems.add(
                        f"{spec} has no {name}, expected a collection with {name}{_instead(spec, part)}"
                    )
                elif problem := getattr(handler, "problem", "") or offline_problem(handler, part, spec):
                    problems.add(problem)
    problems.raise_any()


def _instead(spec: str, part: str) -> str:
    """Names of the same collection that have the part: first its splits, then its siblings."""
    import ir_datasets

    known = list(ir_datasets.registry)
    if spec not in known:
        return ""
    collection = documents_id(spec)
    names = [name for name in known if name.startswith(f"{spec}/")]
    names += [name for name in known if name == collection or name.startswith(f"{collection}/")]
    having = [name for name in dict.fromkeys(names) if ir_datasets.registry[name].has(part)]
    return f": {', '.join(having[:5])}" if having else ""
