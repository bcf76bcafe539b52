"""Topics that several collections share, through ir_datasets' real NeuCLIR."""

import json
import os
from pathlib import Path

import pytest
from helpers import tiny_ir_datasets as tiny
from helpers.beir import write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.cli import main
from mimo_plugin.collections.loading import open_collection
from mimo_plugin.collections.pool import load, pool_prefixes
from mimo_plugin.collections.reading import missing_files
from mimo_plugin.collections.records import Query
from mimo_plugin.core.errors import DataError, UsageError

LANGUAGES = {"fa": "fas", "ru": "rus", "zh": "zho"}


@pytest.fixture(scope="module", autouse=True)
def _neuclir() -> None:
    tiny.write_neuclir(Path(os.environ["IR_DATASETS_HOME"]))


def specs(year: str, *languages: str) -> list[str]:
    return [f"neuclir/1/{lang}/trec-{year}" for lang in languages]


def expected_qrels(
    judged: dict[str, tuple[str, ...]], languages: tuple[str, ...]
) -> set[tuple[str, str, int]]:
    """The union of the languages' judgments, written down by themselves."""
    return {
        (query, f"{lang}:{LANGUAGES[lang]}-{number}", relevance)
        for query, own in judged.items()
        for lang in languages
        if LANGUAGES[lang] in own
        for number, relevance in ((0, 3), (1, 0))
    }


@pytest.mark.parametrize("languages", [("zh", "ru"), ("fa", "ru", "zh"), ("ru", "fa")])
@pytest.mark.parametrize("year", ["2022", "2023"])
def test_union_of_the_judgments(year: str, languages: tuple[str, ...]) -> None:
    judged = tiny.NEUCLIR_2022 if year == "2022" else tiny.NEUCLIR_2023
    pool = load(*specs(year, *languages), shared_topics=True, topic_lang="en")
    docs = list(pool.docs_iter())
    assert {(doc.doc_id, doc.lang) for doc in docs} == {
        (f"{lang}:{LANGUAGES[lang]}-{number}", lang) for lang in languages for number in range(3)
    }
    assert len(docs) == 3 * len(languages)
    wanted = {query for query, own in judged.items() if {LANGUAGES[lang] for lang in languages} & set(own)}
    queries = list(pool.queries_iter())
    assert sorted(query.query_id for query in queries) == sorted(wanted)
    assert set(queries) == {Query(query, f"eng title {query}", "en") for query in wanted}
    found = [(qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in pool.qrels_iter()]
    assert len(set(found)) == len(found)
    assert set(found) == expected_qrels(judged, languages)
    assert pool.queries_lang() == "en"
    assert pool.docs_lang() is None


def test_union_of_2023_is_that_of_trec() -> None:
    own = {
        (qrel.query_id, qrel.doc_id.partition(":")[2], qrel.relevance)
        for qrel in load(*specs("2023", "fa", "ru", "zh"), shared_topics=True).qrels_iter()
    }
    official = open_collection("neuclir/1/multi/trec-2023")
    assert own == {(qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in official.qrels_iter()}


def test_topics_of_2023_are_there() -> None:
    # allenai/ir_datasets#292: its own filter takes the topics of 2022.
    for lang, three in LANGUAGES.items():
        (spec,) = specs("2023", lang)
        dataset = open_collection(spec)
        assert [query.query_id for query in dataset.queries_iter()] == [
            query for query, own in tiny.NEUCLIR_2023.items() if three in own
        ]
        for part in ("docs", "queries", "qrels"):
            assert missing_files(getattr(dataset, f"{part}_handler")()) == []


def test_text_of_the_topics() -> None:
    pool = load(*specs("2022", "zh", "ru"), shared_topics=True, topic_field="description")
    assert {query.text for query in pool.queries_iter()} == {f"eng description {n}" for n in (100, 101, 102)}
    assert {query.lang for query in pool.queries_iter()} == {""}
    with pytest.raises(DataError) as caught:
        load(*specs("2022", "zh", "ru"), shared_topics=True, topic_field="titel")
    assert (
        str(caught.value)
        .splitlines()[0]
        .startswith(
            "neuclir/1/zh/trec-2022: no field 'titel', its queries have title, description, narrative, "
        )
    )
    assert len(str(caught.value).splitlines()) == 2


def test_one_id_with_different_texts() -> None:
    pool = load(*specs("2022", "zh", "ru"), shared_topics=True, topic_field="ht_title")
    with pytest.raises(DataError) as caught:
        list(pool.queries_iter())
    assert str(caught.value).splitlines() == [
        "query id 100 has another text in neuclir/1/ru/trec-2022 than in neuclir/1/zh/trec-2022, expected "
        "the same query where topics are shared: pool the collections without shared topics"
    ]


def test_a_single_collection() -> None:
    for pooled, start in ((None, ""), (True, "zh:")):
        pool = load(*specs("2022", "zh"), shared_topics=True, topic_lang="en", pooled=pooled)
        assert {doc.doc_id for doc in pool.docs_iter()} == {f"{start}zho-{number}" for number in range(3)}
        assert {query.query_id for query in pool.queries_iter()} == {"100", "101"}
        assert {qrel.doc_id for qrel in pool.qrels_iter()} == {f"{start}zho-0", f"{start}zho-1"}


def test_prefixes_of_an_index_hold() -> None:
    prefixes = pool_prefixes(specs("2022", "fa", "ru", "zh"))
    assert prefixes == {"neuclir/1/fa": "fa", "neuclir/1/ru": "ru", "neuclir/1/zh": "zh"}
    pool = load(*specs("2022", "ru"), shared_topics=True, prefixes=prefixes)
    assert {qrel.doc_id for qrel in pool.qrels_iter()} == {"ru:rus-0", "ru:rus-1"}
    assert {query.query_id for query in pool.queries_iter()} == {"100", "102"}


def test_folders_with_topics_in_common(tmp_path: Path) -> None:
    queries = [{"_id": "q1", "text": "lake", "lang": "en"}, {"_id": "q2", "text": "sea", "lang": "en"}]
    de = write_folder(
        tmp_path / "de", [{"_id": "1", "text": "See"}], queries, {"q1": {"1": 1}, "q2": {"1": 0}}
    )
    fi = write_folder(tmp_path / "fi", [{"_id": "1", "text": "Järvi"}], queries[:1], {"q1": {"1": 2}})
    pool = load(de, fi, shared_topics=True, topic_lang="xx")
    assert list(pool.queries_iter()) == [Query("q1", "lake", "en"), Query("q2", "sea", "en")]
    assert {(qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in pool.qrels_iter()} == {
        ("q1", "de:1", 1),
        ("q2", "de:1", 0),
        ("q1", "fi:1", 2),
    }
    again = [queries[0], queries[0], {**queries[0], "text": "mere"}]
    twice = write_folder(tmp_path / "sv", [{"_id": "1", "text": "Sjö"}], again)
    first = load(de, twice, shared_topics=True, topic_lang="en", duplicates="first")
    assert [query.text for query in first.queries_iter()] == ["lake", "sea"]
    with pytest.raises(
        DataError, match=rf"query id q1 occurs twice, in {twice}, with another text: expected each once"
    ):
        list(load(de, twice, shared_topics=True).queries_iter())
    other = write_folder(tmp_path / "no", [{"_id": "1", "text": "Sjø"}], [{**queries[0], "lang": "de"}])
    with pytest.raises(DataError, match="query id q1 has another language in"):
        list(load(de, other, shared_topics=True).queries_iter())


def test_wrong_calls() -> None:
    with pytest.raises(UsageError, match="expected shared_topics=True"):
        load(*specs("2022", "zh"), topic_lang="en")
    with pytest.raises(UsageError, match="2 collections without pooled ids"):
        load(*specs("2022", "zh", "ru"), shared_topics=True, pooled=False)


def test_dutch_has_its_usual_code() -> None:
    pool = load("mmarco/v2/de/dev/small", "mmarco/v2/dt/dev/small")
    assert {doc.lang for doc in pool.docs_iter()} == {"de", "nl"}
    assert {query.lang for query in pool.queries_iter()} == {"de", "nl"}
    assert {doc.doc_id.partition(":")[0] for doc in pool.docs_iter()} == {"de", "nl"}
    assert load("mmarco/v2/dt/dev/small").docs_lang() == "nl"


def test_index_search_and_evaluate(tmp_path: Path) -> None:
    checkpoint = str(plain_xlmr(tmp_path / "checkpoint"))
    index, run, scores = tmp_path / "index", tmp_path / "tiny.trec", tmp_path / "scores.json"
    pool = specs("2022", "ru", "zh")
    shared = ["--shared-topics", "--topic-field", "title", "--topic-lang", "en"]
    assert main(["index", *pool, "--encoder", checkpoint, "--output", str(index)]) == 0
    search = ["search", str(index), "--topics", *pool, "--hits", "6", "--output", str(run)]
    assert main([*search, *shared]) == 0
    lines = [line.split() for line in run.read_text().splitlines()]
    queries = {query for query, own in tiny.NEUCLIR_2022.items() if {"rus", "zho"} & set(own)}
    assert {line[0] for line in lines} == queries
    assert {line[2].split(":")[0] for line in lines} == {"ru", "zh"}
    evaluate = ["evaluate", str(run), "--qrels", *pool, "--measures", "recall@100", "--json", str(scores)]
    assert main([*evaluate, *shared]) == 0
    found = json.loads(scores.read_text())
    assert found["topics"]["languages"] == {"en": len(queries)}
    # Every document was retrieved, so each relevant one was, in whatever language it is.
    assert found["runs"]["tiny"]["mean"]["recall@100"] == 1.0


@pytest.mark.slow
def test_reproduce_neuclir(tmp_path: Path) -> None:
    checkpoint = str(plain_xlmr(tmp_path / "checkpoint"))
    output = tmp_path / "output"
    command = ["reproduce", "neuclir-2022", "--languages", "ru,zh", "--encoder", checkpoint]
    assert main([*command, "--output", str(output)]) == 0
    found = json.loads((output / "results.json").read_text())
    assert found["config"]["languages"] == ["en"]
    assert found["evaluation"]["runs"]["checkpoint"]["mean"]["recall@100"] == 1.0
    assert found["language_bias"]["checkpoint"]["mrc"] is None
    assert "mrc" in found["language_bias"]["checkpoint"]["skipped"]
