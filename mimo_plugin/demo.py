"""The main job on packaged data: real text, a real encoder, FAISS and Lucene."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mimo_plugin.collections import load_pool
from mimo_plugin.errors import ArtifactError
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.indexing import IndexOptions, index_collections
from mimo_plugin.lexical import index_bm25, search_bm25
from mimo_plugin.packaged import TEACHER
from mimo_plugin.progress import bar
from mimo_plugin.searching import SearchOptions, read_topics, search_to_run

COLLECTION = "mimo-sample"
HITS = 100


def run_demo(
    output: Path,
    say: Callable[[str], Any],
    *,
    collection: str = COLLECTION,
    progress: bool | None = None,
) -> tuple[Path, Path]:
    """Writes a dense and a BM25 run of a collection into `output`; returns their paths.

    What an earlier demo left in `output` is used again.

    Raises:
        ArtifactError: `output` holds something else.
    """
    if output.exists() and not output.is_dir():
        raise ArtifactError(f"{output} is a file: a directory was expected")
    pool = load_pool([collection])
    index = output / "index"
    dense, bm25 = output / "minilm.trec", output / "bm25.trec"

    say(f"1. One index of every document of {collection}, encoded with {TEACHER} (an English model)")
    say(f"   mimo index {collection} --encoder {TEACHER} --output {index}")
    built = index_collections([collection], TEACHER, index, IndexOptions(progress=progress))
    say(_indented(built.summary(index)))

    say("2. Every query in every language against that index")
    say(f"   mimo search {index} --topics {collection} --hits {HITS} --output {dense}")
    searched = search_to_run(index, [collection], dense, SearchOptions(hits=HITS, progress=progress))
    say(_indented(f"{dense}: {searched.queries} queries, {searched.lines} lines"))

    say("3. BM25 on the same pool, through Pyserini's Lucene")
    lucene = output / "lucene"
    if not lucene.exists():
        index_bm25(pool, lucene, progress=progress)
    queries = read_topics(pool).queries
    with bar(total=len(queries), what="BM25 searching", unit="queries", enabled=progress) as counter:
        lines = write_run(bm25, search_bm25(lucene, queries, hits=HITS, advance=counter.update), "bm25")
    say(_indented(f"{bm25}: {len(queries)} queries, {lines} lines"))
    return dense, bm25


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" for line in text.splitlines())
