"""`path:DIR`: a folder in BEIR layout, or in the layout of the MIMO paper's benchmark files.

BEIR: `corpus.jsonl` (`_id`, `text`, optional `title` and `lang`), `queries.jsonl` (`_id`, `text`, optional
`lang`), `qrels/SPLIT.tsv` (header `query-id corpus-id score`). The paper's: `corpus.jsonl` with objects
`{doc_id: {"text", "lang"}}`, the same `queries.jsonl`, and `qrels.jsonl` with objects
`{query_id: {doc_id: relevance}}`. Each file may be gzipped (`.jsonl.gz`, `.tsv.gz`). The corpus is told by
its first record and the qrels by their name, so a folder may also mix the two. A part that is in
neither layout may be in that of MTEB's tasks, see `folder_mteb`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.collections.faults import Faults, unreadable
from mimo_plugin.collections.folder_docs import BeirDocs, PaperDocs
from mimo_plugin.collections.folder_mteb import PARTS, TableQrels, find_parts, is_table, load_parts
from mimo_plugin.collections.folder_topics import FolderQrels, FolderQueries, PaperQrels, TsvQrels
from mimo_plugin.collections.jsonlines import read_objects
from mimo_plugin.errors import DataError

PREFIX = "path:"


@dataclass(frozen=True)
class FolderSpec:
    """Attributes:
    directory: the folder, absolute.
    split: the qrels' split that was asked for after `#`, if any.
    subset: what was asked for of a folder in MTEB's layout, such as a language; "" is all of it.
    """

    directory: Path
    split: str | None
    subset: str = ""

    @property
    def collection_id(self) -> str:
        """The folder's name, made fit to stand before the colon of a pooled id."""
        return "_".join((self.subset or self.directory.name).replace(":", " ").split()) or "root"

    @property
    def place(self) -> Path:
        return self.directory / self.subset

    @property
    def files(self) -> list[Path]:
        """Of a subset: its files; otherwise all of the folder."""
        if not self.subset:
            return sorted(file for file in self.directory.rglob("*") if file.is_file())
        parts = find_parts(self.directory, self.subset).values()
        return [file for splits in parts for files in splits.values() for file in files]


def parse_spec(spec: str) -> FolderSpec:
    """Takes `path:DIR` or `path:DIR#SPLIT` apart.

    Raises:
        DataError: there is no such folder, or it cannot be looked at.
    """
    rest = spec.removeprefix(PREFIX)
    candidates = [(rest, "")]
    if "#" in rest:
        directory, _, split = rest.rpartition("#")
        candidates.append((directory, split))
    found = "no such folder"
    try:
        for name, split in candidates:
            path = Path(name).expanduser()
            if name and path.is_dir():
                return FolderSpec(path.resolve(), split or None)
            if name and path.is_file():
                found = "is a file"
            elif name and find_parts(path.parent, path.name):
                return FolderSpec(path.parent.resolve(), split or None, path.name)
    except OSError as error:
        raise DataError(f"{spec}: {unreadable(error.filename, error)}") from error
    except RuntimeError as error:  # ~nobody
        found = str(error)
    raise DataError(f"{spec}: {found}, expected path:DIR with a folder that holds corpus.jsonl")


def load_folder(spec: str) -> Any:
    """The folder as an ir_datasets dataset with the parts that it has.

    Raises:
        DataError: no such folder or split, nothing in it that is known, a first document of neither layout,
            or a file that cannot be read; with every such problem of the folder.
    """
    from ir_datasets import Dataset

    folder = parse_spec(spec)
    if folder.subset:
        found = load_parts(folder.directory, folder.subset, folder.split, spec, PARTS)
        return Dataset(*(found.get(part) for part in PARTS))
    parts: list[Any] = []
    with Faults() as faults:
        for find in (_docs, _queries, _qrels):
            try:
                parts.append(find(folder))
            except OSError as error:
                faults.add(f"{spec}: {unreadable(error.filename, error)}")
            except DataError as error:
                faults.add(str(error))
    # What is not there in these layouts may be in MTEB's.
    found = dict(zip(PARTS, parts, strict=True))
    missing = [part for part in PARTS if found[part] is None]
    tables = load_parts(folder.directory, "", folder.split, spec, missing)
    docs, queries, qrels = (tables.get(part, found[part]) for part in PARTS)
    if not (docs or queries or qrels):
        raise DataError(
            f"{spec}: no corpus.jsonl, queries.jsonl or qrels in it, expected a folder in BEIR layout"
        )
    if isinstance(queries, Path):
        queries = FolderQueries(queries, qrels)
    return Dataset(docs, queries, qrels)


def _docs(folder: FolderSpec) -> BeirDocs | PaperDocs | None:
    corpus = _find(folder.directory, "corpus.jsonl")
    if corpus is None:
        return None
    faults = Faults()
    first = next(read_objects(corpus, faults), None)
    if first is not None:
        # Faults before it are raised by whoever reads the documents, along with those that follow.
        return _layout(corpus, *first)
    faults.raise_any()
    return BeirDocs(corpus)


def _layout(corpus: Path, number: int, record: dict[str, Any]) -> BeirDocs | PaperDocs:
    if "_id" in record:
        return BeirDocs(corpus)
    if record and all(isinstance(value, dict) for value in record.values()):
        return PaperDocs(corpus)
    raise DataError(
        f"{corpus}:{number}: keys {', '.join(map(repr, record)) or 'none'}, expected '_id' and 'text' "
        "(BEIR), or a docid with an object of 'text' and 'lang'"
    )


def _queries(folder: FolderSpec) -> Path | None:
    return _find(folder.directory, "queries.jsonl")


def _qrels(folder: FolderSpec) -> FolderQrels | None:
    directory = folder.directory / "qrels"
    paper = _find(folder.directory, "qrels.jsonl")
    splits = _splits(directory)
    if paper and splits:
        raise DataError(
            f"{paper} and {directory}{'/'}*.tsv: qrels in two layouts, expected one: remove the other"
        )
    if folder.split is not None and folder.split not in splits:
        raise DataError(
            f"{PREFIX}{folder.directory}#{folder.split}: no such split, expected one of the files "
            f"qrels/*.tsv: {', '.join(splits) or 'there are none'}"
        )
    if paper:
        return TableQrels((paper,)) if is_table(paper) else PaperQrels(paper)
    return TsvQrels(directory, tuple(splits.items()), folder.split) if splits else None


def _splits(directory: Path) -> dict[str, Path]:
    """The splits in a folder `qrels`, by name; `glob` would pass over a folder that may not be read."""
    if not directory.is_dir():
        return {}
    names = sorted({path.name.removesuffix(".gz") for path in directory.iterdir() if path.name[0] != "."})
    files = {name.removesuffix(".tsv"): _find(directory, name) for name in names if name.endswith(".tsv")}
    return {name: path for name, path in files.items() if path is not None}


def _find(directory: Path, name: str) -> Path | None:
    found = [path for path in (directory / name, directory / f"{name}.gz") if path.exists()]
    if len(found) > 1:
        raise DataError(
            f"{found[0]} and {found[1].name} are both there, expected one of them: remove the other"
        )
    if found and found[0].is_dir():
        raise DataError(f"{found[0]}: is a folder, expected a file: put the file in its place")
    return found[0] if found else None
