"""What `mimo index` does: every check that is cheap, all reported together, then the build."""

from collections.abc import Sequence
from pathlib import Path

from mimo_plugin.collections import load_pool, pool_prefixes, require
from mimo_plugin.errors import Findings
from mimo_plugin.indexing.build import Built, IndexOptions, build_index
from mimo_plugin.indexing.directory import IndexDirectory
from mimo_plugin.indexing.faiss_index import new_index
from mimo_plugin.student import EncoderOptions, Student


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
        findings.attempt(new_index, options.factory, student.dimension)
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
