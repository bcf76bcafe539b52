"""Serves an index over HTTP: Pyserini's own server, with our encoder and the texts of the documents."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mimo_plugin.collections.dataset import StreamedDocs
from mimo_plugin.collections.records import Doc
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import EnvironmentProblem, Problems
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.nearest import Lines
from mimo_plugin.indexing.open import DOCID, TEXTS, Index, index_at
from mimo_plugin.indexing.search import load_query_encoder
from mimo_plugin.indexing.settings import SearchOptions, ServeOptions
from mimo_plugin.indexing.texts import joined_texts, require_here, texts_of
from mimo_plugin.pyserini.bm25 import BLANK, BM25_INDEXES, index_bm25
from mimo_plugin.pyserini.commands import check_server, run_module

logger = logging.getLogger(__name__)

# Names of the two indexes in the server's paths.
DENSE, BM25 = "dense", "bm25"
# Documents in memory at a time.
_ROWS = 4096


def serve(
    directory: Path,
    options: ServeOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    **changes: Any,
) -> None:
    """Serves an index that `mimo index` wrote, until Ctrl-C.

    `/v1/dense/search` searches it and `/v1/bm25/search` its texts with BM25; `/v1/dense/doc/DOCID` is a text.

    Args:
        encoder_options: how the query encoder is loaded; by default as for the index's documents.
        changes: fields of `ServeOptions` in place of those of `options`.

    Raises:
        ArtifactError: the index is corrupted, or the directory of the texts holds something else.
        DataError: texts are not kept, and the collections are not on this machine.
        EnvironmentProblem: Pyserini's server has no local indexes; the port is in use.
        UsageError: texts are not kept, and the vectors were imported.
    """
    options = replace(options or ServeOptions(), **changes)
    with Problems() as problems:
        with problems.collect():
            check_server()
        with problems.collect():
            _check_port(options.host, options.port)
        with problems.collect():
            manifest = index_at(directory).verify()
            # The server has FAISS's index in memory.
            index = Index(directory, manifest, opened=(None, Lines(directory / DOCID)))
            if TEXTS not in index.manifest.files:
                require_here(index.manifest.plan)
        if options.lucene is not None:
            with problems.collect():
                Artifact(options.lucene, replace(BM25_INDEXES, option="--lucene")).check_output()
    encoder = load_query_encoder([index], SearchOptions(), encoder_options)
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory(prefix="mimo-serve-")))
        lucene = options.lucene or work / "lucene"
        keep_texts(index, lucene, options)
        indexes = {
            BM25: str(lucene.absolute()),
            DENSE: {
                "path": str(directory.absolute()),
                "index_type": "faiss",
                "encoder": DENSE,
                "base_index": BM25,
            },
        }
        # YAML reads JSON.
        configuration = work / "server.yaml"
        configuration.write_text(json.dumps({"indexes": indexes}), encoding="utf-8")
        logger.info(f"http://{options.host}:{options.port}/v1/{DENSE}/search?query=...&hits=10")
        arguments = ["--host", options.host, "--port", str(options.port)]
        # With its prebuilt indexes, the server of 2.1 to 2.3 cannot open a local FAISS index.
        arguments += ["--config", str(configuration), "--no-prebuilt-indexes"]
        run_module("server.rest", arguments, {DENSE: encoder})


def _check_port(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        # Python adds the address to the system's words.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise EnvironmentProblem(
            f"{host}:{port} cannot be listened on: {reason}; choose another --port or --host"
        ) from error


def keep_texts(index: Index, lucene: Path, options: ServeOptions) -> None:
    """Writes a Lucene index of an index's documents that keeps their texts; raises as `index_bm25`.

    Lucene leaves documents without text out, and Pyserini's server then refuses a search that finds one:
    their text is their docid here.
    """

    def docs() -> Iterator[Doc]:
        plan, kept = index.manifest.plan, TEXTS in index.manifest.files
        texts = joined_texts([index.directory / TEXTS]) if kept else texts_of(plan)
        for start in range(0, len(index), _ROWS):
            docids = index.docids.take(np.arange(start, min(start + _ROWS, len(index))))
            langs = index.languages_of(docids)
            for docid, text in zip(docids, texts(docids), strict=True):
                yield Doc(docid, text if text.strip(BLANK) else docid, langs.get(docid, ""))

    index_bm25(StreamedDocs(docs), lucene, texts=True, threads=options.threads, progress=options.progress)
