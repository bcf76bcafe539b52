"""What a command needs of its collections, checked for all of them before it starts."""

from collections.abc import Sequence

from mimo_plugin.collections.folder_topics import FolderQrels
from mimo_plugin.collections.loading import documents_id, load
from mimo_plugin.collections.plain_files import JudgedIds
from mimo_plugin.collections.reading import PARTS, offline_problem
from mimo_plugin.errors import DataError, Problems


def require(specs: Sequence[str], *, docs: bool = False, queries: bool = False, qrels: bool = False) -> None:
    """Checks that every collection exists and has the parts asked for, and that their files can be had.

    Raises:
        DataError: with every problem of every collection.
    """
    wanted = [part for part, asked in (("docs", docs), ("queries", queries), ("qrels", qrels)) if asked]
    problems = Problems(DataError)
    for spec in dict.fromkeys(specs):
        try:
            dataset = load(spec)
        except DataError as error:
            problems.extend(str(error).splitlines())
            continue
        for part in wanted:
            name = PARTS[part]
            handler = getattr(dataset, f"{part}_handler")() if dataset.has(part) else None
            if handler is None or isinstance(handler, JudgedIds):
                problems.add(f"{spec} has no {name}, expected a collection with {name}{_instead(spec, part)}")
                continue
            if isinstance(handler, FolderQrels):
                try:
                    handler.file()
                except DataError as error:
                    problems.add(str(error))
            unfetchable = offline_problem(handler, part, spec)
            if unfetchable:
                problems.add(unfetchable)
    problems.raise_any()


def _instead(spec: str, part: str) -> str:
    """Names of the same collection that do have the part: splits of this one first, then those beside it."""
    import ir_datasets

    known = list(ir_datasets.registry)
    if spec not in known:
        return ""
    collection = documents_id(spec)
    names = [name for name in known if name.startswith(f"{spec}/")]
    names += [name for name in known if name == collection or name.startswith(f"{collection}/")]
    having = [name for name in dict.fromkeys(names) if ir_datasets.registry[name].has(part)]
    return f": {', '.join(having[:5])}" if having else ""
