"""What `mimo index` does: every check that is cheap, all reported together, then the build."""

from collections.abc import Sequence
from pathlib import Path

from mimo_plugin.collections import load_pool, pool_prefixes, require
from mimo_plugin.errors import Findings
from mimo_plugin.indexing.build import Built, IndexOptions, build_index
from mimo_plugin.indexing.directory import IndexDirectory
from mimo_plugin.indexing.faiss_index import new_index
from mimo_plugin.indexing.presets import resolve
from mimo_plugin.student import EncoderOptions, Student

# How many documents there are is not known yet; the kind of index that a preset stands for does not need it.
_MANY = 1_000_000


def index_collections(
    collections: Sequence[str],
    encoder: str,
    output: Path,
    options: IndexOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    *,
    fields: Sequence[str] | None = None,
    pooled: bool = False,
) -> Built:
    """Indexes the documents of one collection, or of a pool of several.

    Args:
        pooled: ids become `lang:id` for a single collection, too.

    Raises:
        MimoError: with every problem that can be found before the documents are read, and as `build_index`.
    """
    options = options or IndexOptions()
    findings = Findings()
    findings.attempt(require, collections, docs=True)
    findings.attempt(IndexDirectory(output).refuse_foreign)
    student = findings.attempt(Student.load, encoder, encoder_options)
    if student is not None:
        findings.attempt(check_factory, options.factory, student.dimension)
    student = findings.complete(student)
    in_pool = pooled or len(collections) > 1
    return build_index(
        load_pool(collections, fields=fields, pooled=in_pool),
        tuple(collections),
        student,
        output,
        options,
        prefixes=pool_prefixes(collections) if in_pool else None,
        fields=tuple(fields) if fields else None,
    )


def check_factory(factory: str, dimension: int) -> None:
    """Raises a UsageError where FAISS cannot build an index of that kind."""
    new_index(resolve(factory, dimension, documents=_MANY).factory, dimension)
