"""The packaged sample, its ir_datasets ids and what its provenance file says."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files

import pytest

from mimo_plugin.collections.loading import open_collection
from mimo_plugin.collections.packaged import LANGUAGES, descriptions, register_sample
from mimo_plugin.collections.pool import load

SAMPLE = files("mimo_plugin.collections") / "sample"


@pytest.fixture(scope="module")
def languages() -> Counter[str]:
    return Counter(lang for row in descriptions() for lang in row.long)


def test_file_is_the_one_that_the_provenance_describes(languages: Counter[str]) -> None:
    data = (SAMPLE / "debian-sample.jsonl.gz").read_bytes()
    provenance = (SAMPLE / "PROVENANCE.md").read_text(encoding="utf-8")
    assert hashlib.sha256(data).hexdigest() in provenance
    assert len(data) < 2_000_000
    assert data[3:8] == b"\0\0\0\0\0"  # no name, no time stamp
    table = [line.strip("|\n ").split("|") for line in provenance.splitlines() if line.startswith("|")]
    header, _, counts = ([cell.strip() for cell in row] for row in table)
    assert dict(zip(header[1:], map(int, counts[1:]), strict=True)) == languages
    assert tuple(sorted(languages)) == LANGUAGES
    rows = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
    assert f"{len(rows):,} descriptions" in provenance


def test_texts_keep_to_the_selection_rule(languages: Counter[str]) -> None:
    shorts: set[tuple[str, str]] = set()
    longs: set[tuple[str, str]] = set()
    for row in descriptions():
        assert len(row.long) == 5
        assert "en" in row.long
        assert row.short.keys() == row.long.keys()
        for lang, text in row.long.items():
            assert 35 <= len(text) <= 220
            if lang != "en":
                assert text != row.long["en"]
                assert row.short[lang] != row.short["en"]
            assert re.fullmatch(r"\S+( \S+)*", text)
        shorts |= {(lang, text) for lang, text in row.short.items()}
        longs |= {(lang, text) for lang, text in row.long.items()}
    assert len(shorts) == len(longs) == languages.total()


def test_parallel_collection(languages: Counter[str]) -> None:
    dataset = open_collection("mimo-sample")
    docs = list(dataset.docs_iter())
    queries = list(dataset.queries_iter())
    assert Counter(doc.lang for doc in docs) == Counter(query.lang for query in queries) == languages
    assert {doc.doc_id for doc in docs} == {query.query_id for query in queries}
    assert len({doc.doc_id for doc in docs}) == len(docs)
    judged = dataset.qrels_dict()
    assert set(judged) == {query.query_id for query in queries}
    for query_id, relevant in judged.items():
        assert query_id in relevant
        assert len(relevant) == 5
        assert {doc_id.split(":")[1] for doc_id in relevant} == {query_id.split(":")[1]}


def test_languages_pooled_are_the_parallel_collection_judged_in_one_language() -> None:
    pool = load(*[f"mimo-sample/{lang}" for lang in LANGUAGES])
    parallel = open_collection("mimo-sample")
    assert set(pool.docs_iter()) == set(parallel.docs_iter())
    assert set(pool.queries_iter()) == set(parallel.queries_iter())
    everything = {(qrel.query_id, qrel.doc_id) for qrel in parallel.qrels_iter()}
    own = {(qrel.query_id, qrel.doc_id) for qrel in pool.qrels_iter()}
    assert own == {pair for pair in everything if pair[0] == pair[1]}


def test_one_language() -> None:
    dataset = open_collection("mimo-sample/pt")
    assert dataset.docs_lang() == dataset.queries_lang() == "pt"
    docs, queries = list(dataset.docs_iter()), dataset.queries_dict()
    assert {doc.doc_id for doc in docs} == set(queries)
    assert dataset.qrels_dict() == {doc.doc_id: {doc.doc_id: 1} for doc in docs}
    assert dataset.docs_store().get(docs[3].doc_id) == docs[3]
    assert dataset.dataset_id() == "mimo-sample/pt"


def test_registered_once_and_then_known_to_ir_datasets() -> None:
    program = (
        "import ir_datasets\n"
        "from mimo_plugin.collections.loading import open_collection\n"
        "from mimo_plugin.collections.packaged import register_sample\n"
        "assert 'mimo-sample' not in list(ir_datasets.registry)\n"
        "register_sample(); register_sample(); open_collection('mimo-sample')\n"
        "print(sum(name.startswith('mimo-sample') for name in ir_datasets.registry))\n"
        "print(next(ir_datasets.load('mimo-sample/de').docs_iter()).lang)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(1 + len(LANGUAGES)), "de"]
    register_sample()
