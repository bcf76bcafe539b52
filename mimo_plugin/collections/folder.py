"""`path:DIR`: a folder in BEIR layout, or in the layout of the MIMO paper's benchmark files.

BEIR: `corpus.jsonl` (`_id`, `text`, optional `title` and `lang`), `queries.jsonl` (`_id`, `text`, optional
`lang`), `qrels/SPLIT.tsv` (header `query-id corpus-id score`). The paper's: `corpus.jsonl` with objects
`{doc_id: {"text", "lang"}}`, the same `queries.jsonl`, and `qrels.jsonl` with objects
`{query_id: {doc_id: relevance}}`. Each JSON Lines file may be gzipped (`.jsonl.gz`). The corpus is told by
its first record and the qrels by their name, so a folder may also mix the two.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.collections.folder_docs import BeirDocs, PaperDocs
from mimo_plugin.collections.folder_topics import FolderQrels, FolderQueries, PaperQrels, TsvQrels
from mimo_plugin.collections.jsonlines import read_objects
from mimo_plugin.errors import DataError

PREFIX = "path:"


@dataclass(frozen=True)
class FolderSpec:
    """Attributes:
    directory: the folder, absolute.
    split: the qrels' split that was asked for after `#`, if any.
    """

    directory: Path
    split: str | None

    @property
    def collection_id(self) -> str:
        """The folder's name, made fit to stand before the colon of a pooled id."""
        return "_".join(self.directory.name.replace(":", " ").split()) or "root"


def parse_spec(spec: str) -> FolderSpec:
    """Takes `path:DIR` or `path:DIR#SPLIT` apart.

    Raises:
        DataError: there is no such folder.
    """
    rest = spec.removeprefix(PREFIX)
    candidates = [(rest, "")]
    if "#" in rest:
        directory, _, split = rest.rpartition("#")
        candidates.append((directory, split))
    for name, split in candidates:
        path = Path(name).expanduser()
        if name and path.is_dir():
            return FolderSpec(path.resolve(), split or None)
    name = candidates[-1][0]
    found = "is a file" if name and Path(name).expanduser().is_file() else "no such folder"
    raise DataError(f"{spec}: {found}, expected path:DIR with a folder that holds corpus.jsonl")


def load_folder(spec: str) -> Any:
    """The folder as an ir_datasets dataset with the parts that it has.

    Raises:
        DataError: no such folder or split, nothing in it that is known, or a first record of neither layout.
    """
    from ir_datasets import Dataset

    folder = parse_spec(spec)
    docs, queries, qrels = _docs(folder), _find(folder.directory, "queries.jsonl"), _qrels(folder)
    if not (docs or queries or qrels):
        raise DataError(
            f"{spec}: no corpus.jsonl, queries.jsonl or qrels in it, expected a folder in BEIR layout"
        )
    return Dataset(docs, FolderQueries(queries, qrels) if queries else None, qrels)


def _docs(folder: FolderSpec) -> BeirDocs | PaperDocs | None:
    corpus = _find(folder.directory, "corpus.jsonl")
    if corpus is None:
        return None
    for number, record in read_objects(corpus):
        if "_id" in record:
            break
        if record and all(isinstance(value, dict) for value in record.values()):
            return PaperDocs(corpus)
        raise DataError(
            f"{corpus}:{number}: keys {', '.join(map(repr, record)) or 'none'}, expected '_id' and 'text' "
            "(BEIR), or a docid with an object of 'text' and 'lang'"
        )
    return BeirDocs(corpus)


def _qrels(folder: FolderSpec) -> FolderQrels | None:
    directory = folder.directory / "qrels"
    paper = _find(folder.directory, "qrels.jsonl")
    splits = sorted(path.stem for path in directory.glob("*.tsv")) if directory.is_dir() else []
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
        return PaperQrels(paper)
    return TsvQrels(directory, tuple(splits), folder.split) if splits else None


def _find(directory: Path, name: str) -> Path | None:
    found = [path for path in (directory / name, directory / f"{name}.gz") if path.is_file()]
    if len(found) > 1:
        raise DataError(
            f"{found[0]} and {found[1].name} are both there, expected one of them: remove the other"
        )
    return found[0] if found else None
