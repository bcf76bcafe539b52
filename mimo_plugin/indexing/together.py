"""Several indexes that are to be searched as one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mimo_plugin.errors import ArtifactError, Findings, Problems, UsageError
from mimo_plugin.indexing.reader import OpenIndex, open_index

# What says that vectors were made alike, whatever texts they are of.
_OF_THE_VECTORS = ("encoder_fingerprint", "dimension", "pooling", "normalize")


def open_indexes(directories: Sequence[Path], parameters: str | None = None) -> list[OpenIndex]:
    """Opens indexes, also of Pyserini, whose hits are to be merged; see `open_index`.

    Raises:
        ArtifactError: one is damaged or there twice, or their scores or ids do not go together.
        UsageError: there are none, or one does not have such parameters.
    """
    if not directories:
        raise UsageError("no index was given, expected at least one")
    findings = Findings()
    for directory, count in Counter(path.resolve() for path in directories).items():
        if count > 1:
            findings.add(ArtifactError, [f"{directory}: given {count} times, expected each index once"])
    opened = [findings.attempt(open_index, directory, parameters, pyserini=True) for directory in directories]
    indexes = [index for index in opened if index is not None]
    findings.attempt(_check_alike, indexes)
    findings.attempt(shared_prefixes, indexes)
    findings.raise_any()
    return indexes


def shared_prefixes(indexes: Sequence[OpenIndex]) -> dict[str, str] | None:
    """The prefixes that ids have in all of these indexes; None where ids are the sources' own.

    Raises:
        ArtifactError: the indexes say different things.
    """
    problems = Problems(ArtifactError)
    shared: dict[str, str] = {}
    pooled = {index.directory: index.manifest.plan.prefixes is not None for index in indexes}
    if len(set(pooled.values())) > 1:
        one, other = (next(path for path in pooled if pooled[path] is kind) for kind in (True, False))
        problems.add(
            f"{one} and {other} cannot be searched as one: the first has ids as lang:id, the second has not; "
            "make both with --pooled, or both without"
        )
    for index in indexes:
        for collection, prefix in (index.manifest.plan.prefixes or {}).items():
            if shared.setdefault(collection, prefix) != prefix:
                problems.add(
                    f"{index.directory}: ids of {collection} begin with '{prefix}:', in another index with "
                    f"'{shared[collection]}:'; make one of them again"
                )
    problems.raise_any()
    return shared if any(pooled.values()) else None


def _check_alike(indexes: Sequence[OpenIndex]) -> None:
    problems = Problems(ArtifactError)
    for other in indexes[1:]:
        for name in _OF_THE_VECTORS:
            mine, its = (getattr(index.manifest.plan, name) for index in (indexes[0], other))
            if mine != its:
                problems.add(
                    f"{other.directory} and {indexes[0].directory} cannot be searched as one: {name} is "
                    f"{its!r} and {mine!r}; make one of them again with the other's options"
                )
    problems.raise_any()
