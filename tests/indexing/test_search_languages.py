"""`--lang`: the hits are those of the whole index, without documents in other languages."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers.beir import documents, write_folder

from mimo_plugin.core.errors import UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.faiss import choosing
from mimo_plugin.indexing.nearest import Listed, Nearest, Searchable
from mimo_plugin.indexing.open import Index
from mimo_plugin.indexing.search import search, search_to_run
from mimo_plugin.indexing.settings import SearchOptions

QUERIES = {"q1": "Suche Sprache", "q2": "haku kieli", "q3": "検索 言語"}
LANGS = [["de"], ["fi", "ja"], ["de", "fi", "ja"]]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = documents(90)
    # Equal documents of every language: their scores tie, across languages and at the last hit.
    for row in rows[40:70]:
        row |= {"title": "", "text": "Suche Sprache"}
    return write_folder(tmp_path_factory.mktemp("folder"), rows)


def build(spec: str, student: Encoder, output: Path, factory: str) -> Index:
    return index(spec, student, output, factory=factory, shard_size=32, progress=False)


@pytest.mark.parametrize(
    "factory", ["flat", "fp16", "sq8", "hnsw", "IVF4,Flat", "IVF4,PQ4x4np", "PCA8,Flat", "Flat,RFlat"]
)
def test_hits_are_those_of_the_whole_index(spec: str, student: Encoder, tmp_path: Path, factory: str) -> None:
    built = build(spec, student, tmp_path / "index", factory)
    options = SearchOptions(search_parameters="nprobe=4" if "IVF" in factory else None, progress=False)
    if "IVF" in factory:
        built = Index(built.directory, built.manifest, "nprobe=4", encoder=student)
    everything = search(built, QUERIES, options, hits=90)
    langs = built.languages_of(f"d{number}" for number in range(90))
    for chosen in LANGS:
        for hits in (1, 7, 25, 90):
            run = search(built, QUERIES, options, hits=hits, lang=chosen)
            for query, ranked in everything.items():
                kept = {docid: score for docid, score in ranked.items() if langs[docid] in chosen}
                wanted = dict(list(kept.items())[:hits])
                if factory == "flat":
                    assert list(run[query].items()) == list(wanted.items())
                else:
                    # Ties at the last hit are cut in FAISS's order.
                    assert sorted(run[query].values()) == pytest.approx(sorted(wanted.values()), abs=1e-6)
                    assert run[query].keys() <= kept.keys()


def test_several_indexes(spec: str, student: Encoder, tmp_path: Path) -> None:
    """One of the two has no document in the language."""
    built = build(spec, student, tmp_path / "index", "flat")
    other = write_folder(tmp_path / "sw", [{"_id": f"s{n}", "text": "haku", "lang": "sw"} for n in range(5)])
    second = build(other, student, tmp_path / "second", "flat")
    for lang, one in (("fi", built), ("sw", second)):
        assert dict(search([built, second], QUERIES, hits=9, lang=lang)) == dict(
            search(one, QUERIES, hits=9, lang=lang)
        )
    both = search([built, second], QUERIES, hits=9, lang="sw, fi")
    assert {docid[0] for docid in both["q2"]} == {"d", "s"}
    with pytest.raises(
        UsageError, match="--lang swa: the index has no such documents, .*de, fi, ja, sw; near: sw"
    ):
        search([built, second], QUERIES, lang="swa")


def test_long_ties_are_read_through(student: Encoder, tmp_path: Path) -> None:
    """More equal documents than FAISS is asked for: all are scored, in trec_eval's order."""
    rows = [{"_id": f"d{n:04}", "text": "gleich", "lang": "de" if n % 3 else "fi"} for n in range(400)]
    built = build(write_folder(tmp_path / "ties", rows), student, tmp_path / "index", "flat")
    run = search(built, {"q": "gleich"}, hits=2, lang="fi")
    assert list(run["q"]) == ["d0399", "d0396"]


def test_hnsw_looks_at_more_documents(tmp_path: Path) -> None:
    """In a language of one document in fifty a search finds as much as it does in the whole index."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((5000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    built = faiss.IndexHNSWFlat(16, 16, faiss.METRIC_INNER_PRODUCT)
    built.add(vectors)
    chosen = np.arange(5000) % 50 == 0
    docids = Listed(map(str, range(5000)))
    found = Nearest([Searchable("index", built, docids, chosen)]).search(vectors[:40], 10)
    exact = np.argsort(-(vectors[:40] @ vectors[chosen].T), axis=1)[:, :10] * 50
    same = [
        len(set(one) & set(other)) for one, other in zip(found.rows.tolist(), exact.tolist(), strict=True)
    ]
    assert sum(same) > 0.95 * 400
    assert choosing(built, chosen).efSearch == 50 * built.hnsw.efSearch


def test_kinds_that_cannot_choose(spec: str, student: Encoder, tmp_path: Path) -> None:
    built = build(spec, student, tmp_path / "index", "PQ4x4")
    with pytest.raises(UsageError, match="FAISS cannot search some documents of this kind"):
        search(built, QUERIES, hits=3, lang="de")


def test_the_language_of_topics_is_another_option(spec: str, student: Encoder, tmp_path: Path) -> None:
    built = index(spec, student, tmp_path / "index", pooled=True, progress=False)
    topics = tmp_path / "topics.tsv"
    topics.write_text("1\tSuche\n")
    output = tmp_path / "run.trec"
    with pytest.raises(
        UsageError, match="--topic-lang which one the queries are in; --lang chooses documents"
    ):
        search_to_run(built, [str(topics)], output, SearchOptions(lang="de", progress=False))
    asked = SearchOptions(lang="de", topic_lang="fi", hits=5, progress=False)
    search_to_run(built, [str(topics)], output, asked)
    columns = [line.split() for line in output.read_text().splitlines()]
    assert {row[0] for row in columns} == {"fi:1"}
    assert len(columns) == 5
    langs = built.languages_of(row[2] for row in columns)
    assert set(langs.values()) == {"de"}
