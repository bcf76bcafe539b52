"""The languages of documents, from the files of an index."""

from collections.abc import Iterable
from pathlib import Path

from mimo_plugin.indexing.manifest import DOCID, LANG, read_manifest, require_unchanged


def read_doc_languages(directory: Path, wanted: Iterable[str]) -> dict[str, str]:
    """Docid -> language, of those wanted documents that an index holds and whose language it knows.

    `docid` and `lang` are streamed side by side until all that are wanted have been met: memory grows with
    these, not with the index. How many documents each language has stands in the manifest.

    Raises:
        ArtifactError: the directory is no index, or a damaged one.
    """
    require_unchanged(directory, read_manifest(directory), (DOCID, LANG))
    missing = {docid.encode() for docid in wanted}
    found: dict[str, str] = {}
    with (directory / DOCID).open("rb") as docids, (directory / LANG).open("rb") as languages:
        for line, language in zip(docids, languages, strict=True):
            if not missing:
                break
            docid = line.rstrip(b"\n")
            if docid in missing:
                missing.discard(docid)
                name = language.decode().rstrip("\n")
                if name:
                    found[docid.decode()] = name
    return found
