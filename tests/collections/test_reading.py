"""ir_datasets' files that are missing, damaged or cannot be fetched, in its real classes."""

import gzip
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_ir_datasets
from ir_datasets import Dataset
from ir_datasets.formats import TrecQrels, TsvQueries
from ir_datasets.util import Download, RequestsDownload

from mimo_plugin.collections.loading import open_collection, require
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.reading import missing_files, read
from mimo_plugin.core.errors import DataError

HOME = Path(os.environ["IR_DATASETS_HOME"])
YORUBA = HOME / "miracl" / "v1.0" / "yo"
GOOD = json.dumps({"docid": "1#0", "title": "a", "text": "b"}).encode()


@pytest.fixture
def yoruba() -> Iterator[Path]:
    """MIRACL's smallest language, one shard, not among the session's files; gone afterwards."""
    corpus = YORUBA / "docs" / "docs-1.jsonl.gz"  # so in ir_datasets, though it is number 0
    corpus.parent.mkdir(parents=True)
    yield corpus
    corpus.unlink()
    corpus.parent.rmdir()
    YORUBA.rmdir()


def _fill(corpus: Path, *lines: bytes) -> None:
    corpus.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))


def test_missing_files_offline_say_which_and_where() -> None:
    with pytest.raises(DataError) as caught:
        list(load("miracl/te/dev").docs_iter())
    text = str(caught.value)
    assert text.startswith("miracl/te/dev: 2 files of its documents are missing and could not be downloaded")
    for shard in range(2):
        assert f"{HOME}/miracl/v1.0/te/docs/docs-{shard}.jsonl.gz (from https://huggingface.co/" in text
    assert "\n" not in text


def test_missing_file_of_an_archive() -> None:
    with pytest.raises(
        DataError, match=r"mr-tydi/th\.data/mrtydi-v1\.0-thai/qrels\.dev\.txt \(from https://"
    ):
        list(load("mr-tydi/th/dev").qrels_iter())


def test_missing_file_of_an_unpacked_archive() -> None:
    gone = HOME / "mr-tydi" / "ko.data" / "mrtydi-v1.0-korean" / "topic.dev.tsv"
    kept = gone.read_bytes()
    gone.unlink()
    try:
        with pytest.raises(DataError, match=rf"a file of its queries is missing .* put it at {gone}$"):
            list(load("mr-tydi/ko/dev").queries_iter())
    finally:
        gone.write_bytes(kept)


def test_files_that_a_filter_needs_are_found() -> None:
    queries = open_collection("mmarco/v2/fr/dev/small").queries_handler()
    assert [file.place.name for file in missing_files(queries)] == ["french.queries.dev.tsv"]
    assert missing_files(open_collection("mmarco/v2/de/dev/small").queries_handler()) == []
    # These are filtered by what two other files name.
    filtered = open_collection("neuclir/1/zh/hc4-filtered").queries_handler()
    assert len(missing_files(filtered)) == 2


def test_nothing_is_missing_where_the_files_are() -> None:
    for spec in ("miracl/de/dev", "mr-tydi/fi/dev", "mmarco/v2/dt/dev/small", "mimo-sample/de"):
        dataset = open_collection(spec)
        for part in ("docs", "queries", "qrels"):
            assert missing_files(getattr(dataset, f"{part}_handler")()) == []


def test_missing_files_of_several_collections_are_reported_together() -> None:
    with pytest.raises(DataError) as caught:
        require(["miracl/te/dev", "miracl/de/dev", "miracl/ar/dev"], docs=True, qrels=True)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["miracl/te/dev"] * 2 + ["miracl/ar/dev"] * 2


def test_document_that_is_not_utf8(yoruba: Path) -> None:
    _fill(yoruba, GOOD, GOOD, GOOD.replace(b"b", "ß".encode("latin-1")))
    with pytest.raises(DataError, match=rf"{yoruba}:3: not valid UTF-8 \(byte 0xdf at column \d+\)"):
        list(load("miracl/yo").docs_iter())


def test_document_that_is_not_json(yoruba: Path) -> None:
    _fill(yoruba, GOOD, GOOD[:-3])
    docs = load("miracl/yo/dev").docs_iter()
    assert next(docs).doc_id == "1#0"
    with pytest.raises(DataError, match=rf"{yoruba}:2: not valid JSON .* \(documents of miracl/yo/dev\)"):
        next(docs)


def test_document_without_a_field(yoruba: Path) -> None:
    _fill(yoruba, GOOD, b'{"docid": "2#0", "title": "a"}')
    with pytest.raises(
        DataError, match=rf"{yoruba}:2: key 'text' is missing \(keys found: 'docid', 'title'\)"
    ):
        list(load("miracl/yo").docs_iter())


def test_truncated_file(yoruba: Path) -> None:
    yoruba.write_bytes(gzip.compress(GOOD * 1000)[:-12])
    with pytest.raises(DataError, match=rf"{yoruba}:\d+: cannot be read: EOFError"):
        list(load("miracl/yo").docs_iter())


@pytest.mark.parametrize(
    ("docid", "message"),
    [("", "is empty"), ("1 0", "'1 0' has white space in it"), ("1\\n", "has white space in it")],
)
def test_docid_that_no_run_can_carry(yoruba: Path, docid: str, message: str) -> None:
    _fill(yoruba, GOOD.replace(b"1#0", docid.encode()))
    with pytest.raises(DataError, match=rf"miracl/yo: document number 1: docid .*{message}"):
        list(load("miracl/yo").docs_iter())


def test_text_with_half_a_character(yoruba: Path) -> None:
    _fill(yoruba, GOOD.replace(b'"b"', b'"\\udc00"'))
    with pytest.raises(DataError, match="miracl/yo: document 1#0 is not valid Unicode: a lone surrogate"):
        list(load("miracl/yo").docs_iter())


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        (b"\tWhere?\n", "query id is empty"),
        (b"1 2\tWhere?\n", "query id '1 2' has white space in it"),
        (b"1\tWhere?\n2\n", r"topics\.tsv:2: 1 columns, expected 2 with tabs between them"),
        (b"1\tStra\xdfe\n", r"topics\.tsv:1: not valid UTF-8 \(byte 0xdf"),
    ],
)
def test_bad_topics(topics: bytes, message: str) -> None:
    path = YORUBA / "dev" / "topics.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(topics)
    try:
        with pytest.raises(DataError, match=message):
            list(load("miracl/yo/dev").queries_iter())
    finally:
        path.unlink()
        path.parent.rmdir()
        YORUBA.rmdir()


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        (b"1 0 1#0 1\n\n1 0 2#0\n", r"qrels\.tsv:3: 3 columns, expected 4"),
        (b"1 0 1#0 1\n1 0 2#0 yes\n", r"qrels\.tsv:2: relevance 'yes', expected an integer"),
    ],
)
def test_bad_qrels(qrels: bytes, message: str) -> None:
    path = YORUBA / "dev" / "qrels.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(qrels)
    try:
        with pytest.raises(DataError, match=message):
            list(load("miracl/yo/dev").qrels_iter())
    finally:
        path.unlink()
        path.parent.rmdir()
        YORUBA.rmdir()


def test_a_folder_in_the_place_of_a_file(yoruba: Path) -> None:
    yoruba.mkdir()
    try:
        with pytest.raises(DataError, match=rf"^{yoruba}: cannot be read \(Is a directory\)") as caught:
            list(load("miracl/yo").docs_iter())
    finally:
        yoruba.rmdir()
        yoruba.touch()
    assert "\n" not in str(caught.value)


def test_bad_ids_of_several_collections_are_reported_together(yoruba: Path) -> None:
    _fill(yoruba, GOOD, GOOD.replace(b"1#0", b""), GOOD.replace(b"1#0", b"2 0"), GOOD.replace(b"1#0", b"3#0"))
    docs = load("miracl/yo", "miracl/te/dev", "miracl/sw").docs_iter()
    good = [next(docs) for _ in range(2 + len(tiny_ir_datasets.docids()))]
    assert [doc.doc_id for doc in good[:3]] == ["yo:1#0", "yo:3#0", "sw:0#0"]
    with pytest.raises(DataError) as caught:
        next(docs)
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("miracl/yo: document number 2: docid is empty")
    assert second.startswith("miracl/yo: document number 3: docid '2 0' has white space in it")
    assert third.startswith("miracl/te/dev: 2 files of its documents are missing")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(405)
        self.end_headers()

    def do_GET(self) -> None:
        found = self.path == "/topics.tsv"
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(b"1\tWo ist der See?\n")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def url(socket_enabled: None) -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_missing_file_is_downloaded_where_the_host_answers(url: str, tmp_path: Path) -> None:
    place = tmp_path / "topics.tsv"
    queries = TsvQueries(Download([RequestsDownload(f"{url}/topics.tsv")], cache_path=str(place)))
    assert [query.text for query in read(Dataset(queries), "queries", "own")] == ["Wo ist der See?"]
    assert place.is_file()


def test_failed_download_says_where_to_put_the_file(url: str, tmp_path: Path) -> None:
    place = tmp_path / "qrels.txt"
    qrels = TrecQrels(Download([RequestsDownload(f"{url}/none", tries=1)], str(place), "0" * 32), {})
    with pytest.raises(
        DataError, match=rf"download failed \(HashVerificationError: .* put it at {place} \(from {url}/none\)"
    ):
        list(read(Dataset(qrels), "qrels", "own"))
    assert list(tmp_path.iterdir()) == []
