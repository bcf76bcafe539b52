"""What a command needs of its collections, checked for all of them before it starts."""

from collections.abc import Sequence

from mimo_plugin.collections.folder_topics import FolderQrels
from mimo_plugin.collections.loading import load
from mimo_plugin.collections.reading import PARTS, offline_problem
from mimo_plugin.errors import DataError, Problems


def require(specs: Sequence[str], *, docs: bool = False, queries: bool = False, qrels: bool = False) -> None:
    """Checks that every collection exists and has the parts asked for, and that their files can be had.

    Raises:
        DataError: with every problem of every collection.
    """
    wanted = [part for part, asked in (("docs", docs), ("queries", queries), ("qrels", qrels)) if asked]
    problems = Problems(DataError)
    hosts: dict[str, bool] = {}
    for spec in dict.fromkeys(specs):
        try:
            dataset = load(spec)
        except DataError as error:
            problems.add(str(error))
            continue
        for part in wanted:
            name = PARTS[part]
            if not dataset.has(part):
                problems.add(f"{spec} has no {name}, expected a collection with {name}{_instead(spec, part)}")
                continue
            handler = getattr(dataset, f"{part}_handler")()
            if isinstance(handler, FolderQrels):
                try:
                    handler.file()
                except DataError as error:
                    problems.add(str(error))
            unfetchable = offline_problem(handler, part, spec, hosts)
            if unfetchable:
                problems.add(unfetchable)
    problems.raise_any()


def _instead(spec: str, part: str) -> str:
    """Splits of the same collection that do have the part."""
    import ir_datasets

    parent = spec.rpartition("/")[0]
    family = [name for name in ir_datasets.registry if name.startswith(f"{parent}/")] if parent else []
    having = [name for name in family if ir_datasets.registry[name].has(part)]
    return f": {', '.join(having[:5])}" if having else ""
