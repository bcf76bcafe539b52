"""Milvus: a search of a collection finds what FAISS finds, and only what was loaded whole is searched.

The engine is Milvus Lite. `MIMO_MILVUS=http://127.0.0.1:19530 pytest ...` runs the same tests on a server.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.cli.index import export_command
from mimo_plugin.cli.search import search_command
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing import loading, milvus
from mimo_plugin.indexing.ask import Searcher
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.build import index_vectors
from mimo_plugin.indexing.exporting import export_vectors
from mimo_plugin.indexing.importing import import_vectors
from mimo_plugin.indexing.milvus import Address, Connection, find_collection
from mimo_plugin.indexing.open import AnyIndex, find_indexes
from mimo_plugin.indexing.search import find_hits, search, search_to_run
from mimo_plugin.indexing.settings import EncodeOptions, Format, IndexOptions, SearchOptions
from mimo_plugin.indexing.vectors import open_vectors

QUERIES = [
    {"_id": "q1", "text": "Suche Sprache", "lang": "de"},
    {"_id": "q2", "text": "haku kieli", "lang": "fi"},
    {"_id": "q3", "text": "検索 言語", "lang": "ja"},
]
DOCUMENTS = 90
ODD = """it's-"d3"\\"""
SERVER = os.environ.get("MIMO_MILVUS", "")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Milvus, without a collection."""
    yield f"milvus:{SERVER or tmp_path_factory.mktemp('milvus') / 'lite.db'}"
    if SERVER:
        connection = Connection.to(Address.parse(f"milvus:{SERVER}"))
        for name in connection.client.list_collections():
            connection.client.drop_collection(name)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = documents(DOCUMENTS)
    # Equal documents of every language: their scores tie, across languages and at the last hit.
    for row in rows[40:70]:
        row |= {"title": "", "text": "Suche Sprache"}
    rows[3]["_id"] = ODD
    return write_folder(tmp_path_factory.mktemp("folder"), rows, QUERIES, {"q1": {"d1": 1}})


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, spec: str, student: Encoder) -> Path:
    output = tmp_path_factory.mktemp("indexes") / "flat"
    build_index(spec, student, output, shard_size=32, progress=False)
    return output


@pytest.fixture(scope="module")
def collection(engine: str, flat: Path) -> str:
    export_vectors([flat], Format.MILVUS, f"{engine}#flat", progress=False)
    return f"{engine}#flat"


@pytest.mark.parametrize("hits", [1, 7, 25, 100])
@pytest.mark.parametrize("lang", ["", "de", "ja,fi"])
def test_a_run_is_that_of_the_flat_index(
    collection: str, flat: Path, spec: str, tmp_path: Path, hits: int, lang: str
) -> None:
    options = SearchOptions(hits=hits, lang=lang, progress=False)
    told = [
        search_to_run(place, [spec], tmp_path / name, options)
        for place, name in ((flat, "flat"), (collection, "milvus"))
    ]
    assert told[0] == told[1]
    expected, found = (
        [line.split() for line in (tmp_path / name).read_text().splitlines()] for name in ("flat", "milvus")
    )
    assert [row[:4] for row in found] == [row[:4] for row in expected]
    scores = [[float(row[4]) for row in rows] for rows in (found, expected)]
    assert np.allclose(*scores, rtol=0, atol=1e-5)


class Encoded:
    """An encoder whose work is done: a query's text is the number of its vector."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        return self._vectors[[int(text) for text in texts]]


def imported(directory: Path, vectors: np.ndarray, docids: list[str]) -> Path:
    """A directory of vectors without an encoder."""
    np.save(directory / "v.npy", vectors)
    (directory / "v.docid").write_text("".join(f"{docid}\n" for docid in docids))
    options = EncodeOptions(shard_size=1000, progress=False)
    import_vectors([directory / "v.npy"], directory / "vectors", options, lang="de")
    return directory / "vectors"


def test_hits_are_those_of_faiss_up_to_ties_of_many(engine: str, tmp_path: Path) -> None:
    """Vectors of any length, some of them many times, and others that differ by rounding only."""
    generator = np.random.default_rng(3)
    vectors = (3 * generator.standard_normal((3000, 96))).astype(np.float32)
    vectors[500:620] = vectors[7]
    vectors[1000:1400] = vectors[8]
    vectors[2000:2050] = vectors[9] * (1 + 1e-7 * generator.integers(-1, 2, (50, 96))).astype(np.float32)
    queries = vectors[:40] + 0.05 * generator.standard_normal((40, 96)).astype(np.float32)
    docids = [f"d{number}" for number in generator.permutation(3000)]
    source = imported(tmp_path, vectors, docids)
    flat = tmp_path / "flat"
    index_vectors(open_vectors([source]), flat, IndexOptions(progress=False))
    export_vectors([source], Format.MILVUS, f"{engine}#ties", progress=False)

    def run(indexes: list[AnyIndex], hits: int) -> list[list[tuple[float, str]]]:
        asked = [(f"q{number}", str(number)) for number in range(40)]
        cut: list[str] = []
        found = [
            sorted(zip(hit.scores.tolist(), hit.docids, strict=True))
            for hit in find_hits(indexes, Encoded(queries), asked, hits=hits, cut=cut.append)
        ]
        assert not cut
        return found

    both = find_indexes([flat]), find_indexes([f"{engine}#ties"])
    for hits in (10, 100):
        expected, found = (run(indexes, hits) for indexes in both)
        for one, other in zip(found, expected, strict=True):
            assert [docid for _, docid in one] == [docid for _, docid in other]
            assert np.allclose(*([score for score, _ in hit] for hit in (one, other)), rtol=1e-6, atol=1e-5)


def test_several_indexes_of_both_kinds(collection: str, flat: Path, student: Encoder, tmp_path: Path) -> None:
    """Searched as one: the ids of the second begin where those of the first end."""
    rows = [{"_id": f"s{number}", "text": f"haku {number}", "lang": "sw"} for number in range(9)]
    other = build_index(write_folder(tmp_path / "sw", rows), student, tmp_path / "sw-index", progress=False)
    texts = {query["_id"]: query["text"] for query in QUERIES}
    expected = search([flat, other], texts, hits=60)
    for order in ([collection, other], [other, collection]):
        found = search(order, texts, hits=60)
        for query in texts:
            assert {*found[query]} == {*expected[query]}
            assert found[query] == pytest.approx(expected[query], abs=1e-5)


def test_single_queries_with_languages_and_texts(collection: str, flat: Path) -> None:
    options = SearchOptions(hits=9, lang="fi,de")
    shown = [Searcher(place, options).search(["haku kieli", "Haus"]) for place in (collection, flat)]
    for found, expected in zip(*shown, strict=True):
        assert [hit._replace(score=0) for hit in found] == [hit._replace(score=0) for hit in expected]
        assert all(hit.text and hit.lang in ("fi", "de") for hit in found)
    index = find_collection(collection, None)
    assert index.languages_of([ODD, "d1", "none"]) == {ODD: "de", "d1": "fi"}
    assert index.texts([ODD])


_KILLED = """
import os, signal
from mimo_plugin.cli import entry_point
from mimo_plugin.indexing import loading

records = loading._records
def killed(start, batch):
    if start >= 9000:
        os.kill(os.getpid(), signal.SIGKILL)
    return records(start, batch)

loading._records = killed
entry_point()
"""


@pytest.mark.slow
def test_a_load_that_was_killed_goes_on(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"milvus:{SERVER or tmp_path / 'killed.db'}#killed"
    generator = np.random.default_rng(5)
    vectors = generator.standard_normal((12000, 8)).astype(np.float32)
    docids = [f"d{number}" for number in range(12000)]
    source = imported(tmp_path, vectors, docids)
    command = ["export", str(source), "--to", "milvus", "--output", place]
    ended = subprocess.run([sys.executable, "-c", _KILLED, *command], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(ArtifactError, match="loaded in part: run the `mimo export` command again"):
        find_indexes([place])

    (tmp_path / "other").mkdir()
    vectors[11999, 0] += 1
    other = imported(tmp_path / "other", vectors, docids)
    with pytest.raises(ArtifactError, match="vectors of another export"):
        export_vectors([other], Format.MILVUS, place, progress=False)

    sent = []
    records = loading._records

    def counted(start: int, batch: object) -> object:
        made = records(start, batch)
        sent.extend(record["row"] for record in made)
        return made

    monkeypatch.setattr(loading, "_records", counted)
    done = export_vectors([source], Format.MILVUS, place, progress=False)
    # All but the last complete requests; one of them is sent again.
    assert 4096 <= sent[0] <= 9000
    assert sent == list(range(sent[0], 12000))
    assert (done.documents, done.already) == (12000, False)
    assert len(find_indexes([place])[0]) == 12000
    sent.clear()
    assert export_vectors([source], Format.MILVUS, place, progress=False).already
    assert not sent
    # Another source in its place only when asked for.
    with pytest.raises(ArtifactError, match="collection_fingerprint"):
        export_vectors([other], Format.MILVUS, place, progress=False)
    assert not export_vectors([other], Format.MILVUS, place, resume=False, progress=False).already


def test_what_is_not_what_was_sent_is_not_searched(
    engine: str, flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{engine}#damaged"
    records = loading._records

    def other(start: int, batch: object) -> object:
        made = records(start, batch)
        made[5]["vector"] = made[6]["vector"]
        return made

    with monkeypatch.context() as patched:
        patched.setattr(loading, "_records", other)
        with pytest.raises(ArtifactError, match="holds other vectors, docids or languages than were sent"):
            export_vectors([flat], Format.MILVUS, place, progress=False)
    with pytest.raises(ArtifactError, match="loaded in part"):
        find_indexes([place])
    export_vectors([flat], Format.MILVUS, place, resume=False, progress=False)
    connection = Connection.to(Address.parse(place))
    connection.client.delete("damaged", ids=["d5"])
    with pytest.raises(ArtifactError, match=f"holds {DOCUMENTS - 1} documents, {DOCUMENTS} were loaded"):
        search(place, "Haus")


def test_another_encoder_is_refused(collection: str, tmp_path: Path) -> None:
    other = str(plain_xlmr(tmp_path / "other", seed=8))
    with pytest.raises(ArtifactError, match=r"is not the encoder of milvus:.*, fingerprint"):
        search(collection, "Haus", encoder=other)
    assert search(collection, "Haus", encoder=other, allow_other_encoder=True, hits=3)["0"]


def test_what_mimo_did_not_make_is_left_alone(engine: str, flat: Path) -> None:
    connection = Connection.to(Address.parse(f"{engine}#theirs"))
    connection.client.create_collection("theirs", dimension=4)
    with pytest.raises(ArtifactError, match="did not make: name another one after #"):
        export_vectors([flat], Format.MILVUS, f"{engine}#theirs", resume=False, progress=False)
    with pytest.raises(ArtifactError, match="was not made by `mimo export --to milvus`"):
        find_indexes([f"{engine}#theirs"])
    assert connection.client.has_collection("theirs")
    with pytest.raises(ArtifactError, match=r"#none: no such collection, there are .*theirs"):
        find_indexes([f"{engine}#none"])


def test_other_index_types(engine: str, flat: Path) -> None:
    place = f"{engine}#hnsw"
    export_vectors([flat], Format.MILVUS, place, index_type="hnsw,M=16,efConstruction=100", progress=False)
    with pytest.raises(ArtifactError, match=r"index type is 'FLAT', there it is 'HNSW,M=16"):
        export_vectors([flat], Format.MILVUS, place, progress=False)
    run = search(place, "haku kieli", hits=30, search_parameters="ef=90")
    assert len({*run["0"]} & {*search(flat, "haku kieli", hits=30)["0"]}) >= 27
    for wrong in ("ef", "=3"):
        with pytest.raises(UsageError, match="expected NAME=VALUE"):
            search(place, "Haus", search_parameters=wrong)
    with pytest.raises((UsageError, EnvironmentProblem), match="Milvus (Lite does not have it|says: )"):
        export_vectors([flat], Format.MILVUS, f"{engine}#no", index_type="NONE", progress=False)
    # What was refused can be made otherwise.
    export_vectors([flat], Format.MILVUS, f"{engine}#no", resume=False, progress=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("milvus:indexes/sw", "expected milvus:DIR.db"),
        ("milvus:", "expected milvus:DIR.db"),
        ("milvus:ftp://head:1", "expected milvus:http://HOST:PORT"),
        ("milvus:http://", "expected milvus:http://HOST:PORT"),
        ("milvus:http://me:secret@head:1#a", "give user:password in MILVUS_TOKEN"),
        ("milvus:a.db#sw-yo", "'sw-yo' is no name of a collection"),
    ],
)
def test_addresses(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        find_indexes([text])
    assert "secret" not in str(caught.value)


def test_nothing_is_made_where_nothing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="no such directory, expected one that `mimo export"):
        find_indexes([f"milvus:{tmp_path / 'none.db'}"])
    assert not (tmp_path / "none.db").exists()
    monkeypatch.setattr(milvus, "_PATIENCE", 1)
    with pytest.raises(EnvironmentProblem, match=r"127.0.0.1:9#mimo: Milvus says: .*see that it runs"):
        find_indexes(["milvus:http://127.0.0.1:9"])
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    (tmp_path / "some.db").mkdir()
    with pytest.raises(EnvironmentProblem, match=r"pip install 'mimo-plugin\[milvus\]'"):
        find_indexes([f"milvus:{tmp_path / 'some.db'}"])


@pytest.mark.slow
@pytest.mark.skipif(bool(SERVER), reason="a server takes many clients")
def test_milvus_lite_takes_one_process_at_a_time(flat: Path, tmp_path: Path) -> None:
    """Its server ends with its last user."""
    place = f"milvus:{tmp_path / 'lite.db'}"
    export_vectors([flat], Format.MILVUS, place, progress=False)
    command = [sys.executable, "-m", "mimo_plugin", "search", place, "-q", "Haus", "-k", "2"]
    assert search(place, "Haus")["0"]
    index = find_collection(place, None)
    while_open = subprocess.run(command, capture_output=True, text=True, check=False)
    assert while_open.returncode == 1
    assert "is in use by another process, and Milvus Lite takes one at a time" in while_open.stderr
    assert len(while_open.stderr.splitlines()) == 1
    del index
    find = "import sys; from mimo_plugin.indexing.open import find_indexes as f; f(sys.argv[1:])[0].open()"
    subprocess.run([sys.executable, "-c", find, place], check=True)


def test_the_command_line(engine: str, flat: Path, spec: str, tmp_path: Path) -> None:
    run = CliRunner().invoke
    place = f"{engine}#command"
    made = run(export_command, [str(flat), "--to", "milvus", "--output", place, "--dimension", "16"])
    assert made.exit_code == 0, made.output
    assert made.output.endswith(f"{place}: {DOCUMENTS} vectors, 16 dimensions, milvus\n")
    output = tmp_path / "run.trec"
    asked = run(search_command, [place, "--topics", spec, "--output", str(output), "--lang", "de"])
    assert asked.exit_code == 0, asked.output
    assert len(output.read_text().splitlines()) == 3 * DOCUMENTS // 3
    wrong = [
        ["--to", "milvus", "--output", str(tmp_path / "x")],
        ["--to", "parquet", "--output", "milvus:x.db"],
        ["--to", "parquet", "--output", str(tmp_path / "x"), "--index-type", "HNSW"],
    ]
    messages = ["needs an address that begins with milvus:"] * 2 + ["only milvus builds an index of a type"]
    for options, message in zip(wrong, messages, strict=True):
        with pytest.raises(UsageError, match=message):
            run(export_command, [str(flat), *options], catch_exceptions=False)
