"""What `mimo encode` does: every check that is cheap, all reported together, then the work."""

from collections.abc import Sequence
from pathlib import Path

from mimo_plugin.collections import load_pool, pool_prefixes, require
from mimo_plugin.errors import Findings
from mimo_plugin.student import EncoderOptions, Student
from mimo_plugin.vectors.directory import VectorsDirectory
from mimo_plugin.vectors.encoding import Encoded, EncodeOptions, encode_collection


def encode_collections(
    collections: Sequence[str],
    encoder: str,
    output: Path,
    options: EncodeOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    *,
    fields: Sequence[str] | None = None,
    pooled: bool = False,
) -> Encoded:
    """Encodes the documents of one collection, or of a pool of several.

    Args:
        pooled: ids become `lang:id` for a single collection, too.

    Raises:
        MimoError: with every problem that can be found before the documents are read, and as
            `encode_collection`.
    """
    findings = Findings()
    findings.attempt(require, collections, docs=True)
    findings.attempt(VectorsDirectory(output).refuse_foreign)
    student = findings.complete(findings.attempt(Student.load, encoder, encoder_options))
    in_pool = pooled or len(collections) > 1
    return encode_collection(
        load_pool(collections, fields=fields, pooled=in_pool),
        tuple(collections),
        student,
        output,
        options,
        prefixes=pool_prefixes(collections) if in_pool else None,
        fields=tuple(fields) if fields else None,
    )
