"""The language bias of a run as a whole: what is in it, what is skipped and why, what it needs."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.beir import write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import DataError, UsageError
from mimo_plugin.evaluation.fairness import mrc, peer, peer_raw, peer_topics
from mimo_plugin.evaluation.language import Cutoffs, language_bias, parse_cutoffs
from mimo_plugin.evaluation.results import BiasResult
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import Topics, documents_of, load_topics, make_topics, pool_doc_languages

LANGS = ("de", "en", "fi")
DOC_LANGS = {f"{language}:{number:02}": language for language in LANGS for number in range(8)}
DOCIDS = sorted(DOC_LANGS)


def falling(*docids: str) -> dict[str, float]:
    """Hits in this order."""
    return {docid: float(-rank) for rank, docid in enumerate(docids)}


def parallel(seed: int = 0) -> tuple[Run, Topics]:
    """Four texts; every version of one is relevant to every version of its query. Random rankings."""
    rng = np.random.default_rng(seed)
    ids = [f"{language}:{text:02}" for language in LANGS for text in range(4)]
    qrels = {query: {f"{name}:{query[3:]}": 1 for name in LANGS} for query in ids}
    hits = {query: falling(*rng.permutation(DOCIDS).tolist()) for query in ids}
    return Run.from_hits("r", hits), make_topics(qrels, {query: query[:2] for query in ids})


PARTS = {
    "peer": {"mean", "per_language", "sensitive", "topics"},
    "peer_raw": {"mean", "per_language", "sensitive", "topics"},
    "mrc": {"mean", "per_language", "per_pair", "topics", "missing", "unscored"},
    "awrf": {"mean", "per_language", "target", "attention", "queries"},
    "language_mix": {
        "query_languages",
        "doc_languages",
        "shares",
        "own",
        "entropy",
        "queries",
        "without_hits",
    },
    "same_language_preference": {"mean", "per_language", "queries", "left_out"},
    "cross_lingual_gap": {"measure", "same", "other", "gap", "per_language", "queries", "left_out"},
}


def written(bias: BiasResult) -> dict[str, object]:
    """Through JSON and back, which NaN does not survive."""
    content: dict[str, object] = json.loads(bias.to_json())
    return content


def test_everything_there_is() -> None:
    run, topics = parallel()
    found = written(language_bias(run, topics, DOC_LANGS, k=6))
    assert list(found) == ["cutoff", *PARTS, "skipped"]
    assert {name: set(found[name]) for name in PARTS} == PARTS
    assert (found["cutoff"], found["skipped"]) == (6, {})
    assert found["peer"] == {
        "mean": peer(run, topics, DOC_LANGS, 6).mean,
        "per_language": peer(run, topics, DOC_LANGS, 6).per_language,
        "sensitive": 0,
        "topics": 12,
    }
    assert found["peer_raw"]["mean"] == peer_raw(run, topics, DOC_LANGS, 6).mean
    assert found["mrc"]["per_pair"] == [list(pair) for pair in mrc(run, topics, 6).per_pair]
    assert (found["awrf"]["target"], found["awrf"]["attention"]) == ("relevant", "log")
    assert np.array(found["language_mix"]["shares"]).shape == (3, 3)
    gap = found["cross_lingual_gap"]
    assert gap["measure"] == "ndcg@6"
    assert gap["gap"] == pytest.approx(gap["same"] - gap["other"])
    assert set(gap["per_language"]["fi"]) == {"same", "other", "gap", "queries"}
    assert gap["queries"] == sum(part["queries"] for part in gap["per_language"].values()) == 12


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12), judged=st.integers(1, 6))
def test_any_run_gives_numbers_or_reasons(seed: int, k: int, judged: int) -> None:
    rng = np.random.default_rng(seed)
    ids = [f"{language}:{text:02}" for language in LANGS for text in range(2)]
    qrels = {
        query: {docid: int(rng.integers(-1, 3)) for docid in rng.permutation(DOCIDS)[:judged].tolist()}
        for query in ids
    }
    hits = {query: falling(*rng.permutation(DOCIDS)[: int(rng.integers(0, 9))].tolist()) for query in ids}
    hits[ids[0]] = falling("fi:00")
    run, topics = Run.from_hits("r", hits), make_topics(qrels, {query: query[:2] for query in ids})
    found = written(language_bias(run, topics, DOC_LANGS, k=k))
    missing = {name for name in PARTS if found[name] is None or found[name].get("mean", 0) is None}
    assert missing == found["skipped"].keys() <= PARTS.keys() - {"language_mix"}
    assert all("\n" not in reason and reason for reason in found["skipped"].values())
    # Only the languages of hits and relevant documents are needed, if the collection's are told.
    needed = {docid: DOC_LANGS[docid] for docid in documents_of(run, topics, k)}
    assert written(language_bias(run, topics, needed, k=k, collection=dict.fromkeys(LANGS, 8))) == found


def test_the_order_of_runs_and_topics_does_not_matter() -> None:
    run, topics = parallel(3)
    turned = Run("r", dict(reversed(run.queries.items())))
    assert written(language_bias(turned, topics, DOC_LANGS)) == written(language_bias(run, topics, DOC_LANGS))


def test_one_language_only() -> None:
    qrels = {"q1": {"de:00": 1, "de:01": 1}, "q2": {"de:02": 1}}
    topics = make_topics(qrels, dict.fromkeys(qrels, "de"))
    run = Run.from_hits("r", {"q1": falling("de:01", "de:00"), "q2": falling("de:05")})
    german = {docid: language for docid, language in DOC_LANGS.items() if language == "de"}
    bias = language_bias(run, topics, german)
    found = written(bias)
    assert found["peer"] == found["peer_raw"] == {"mean": None, "sensitive": 0, "topics": 2}
    assert bias.peer.mean is None
    assert [found[name] for name in ("mrc", "awrf", "same_language_preference", "cross_lingual_gap")] == [
        None
    ] * 4
    assert (found["language_mix"]["own"], found["language_mix"]["shares"]) == (1, [[1]])
    for name in ("peer", "awrf", "same_language_preference", "cross_lingual_gap"):
        assert found["skipped"][name] == (
            "all documents are in one language, 'de', expected two or more to compare"
        )
    assert found["skipped"]["mrc"].startswith("none of 2 topics has versions in two languages, expected")


def test_queries_in_one_language_and_none_of_its_documents() -> None:
    """As NeuCLIR has it: English queries, Russian and Chinese documents."""
    docs = {f"{language}:{number}": language for language in ("ru", "zh") for number in range(5)}
    qrels = {"1": {"ru:0": 1, "ru:1": 3, "zh:0": 1, "zh:1": 1}, "2": {"zh:2": 1}}
    topics = make_topics(qrels, dict.fromkeys(qrels, "en"))
    run = Run.from_hits("r", {query: falling(*docs) for query in qrels})
    found = written(language_bias(run, topics, docs))
    assert found["skipped"].keys() == {"mrc", "same_language_preference", "cross_lingual_gap"}
    assert "in its own language" in found["skipped"]["same_language_preference"]
    assert "across languages" in found["skipped"]["cross_lingual_gap"]
    assert (found["peer"]["sensitive"], found["awrf"]["queries"]) == (1, 2)
    assert found["language_mix"]["query_languages"] == ["en"]


def test_no_topic_has_a_relevant_document() -> None:
    qrels = {"de:1": {"de:00": 0, "en:00": 0}, "en:1": {"de:00": 0}}
    topics = make_topics(qrels, {query: query[:2] for query in qrels})
    run = Run.from_hits("r", {query: falling("de:00", "fi:00") for query in qrels})
    found = written(language_bias(run, topics, DOC_LANGS))
    assert found["skipped"].keys() == PARTS.keys() - {"language_mix"}
    assert found["peer"]["mean"] is None
    assert found["skipped"]["peer"] == (
        "no topic has relevant documents in two languages, which PEER compares"
    )
    assert found["skipped"]["awrf"].startswith("none of 2 topics has a hit and a relevant document")
    # Against a target that asks nothing of judgments it can be told.
    assert written(language_bias(run, topics, DOC_LANGS, target="uniform"))["awrf"]["queries"] == 2


def test_relevance_levels_in_one_language_each() -> None:
    topics = make_topics({"q": {"de:00": 1, "en:00": 2}}, {"q": "de"})
    found = written(language_bias(Run.from_hits("r", {"q": falling("de:00")}), topics, DOC_LANGS))
    assert found["peer"]["mean"] is not None
    assert found["peer_raw"]["mean"] is None
    assert found["skipped"]["peer_raw"] == (
        "no topic has relevant documents of one relevance level in two languages, which PEER compares"
    )


def test_languages_without_a_hit_are_in_the_mix() -> None:
    run, topics = parallel()
    docs = {docid: DOC_LANGS[docid] for docid in documents_of(run, topics, 3)}
    sizes = {**dict.fromkeys(LANGS, 8), "ja": 100, "sv": 0, "": 7}
    mix = language_bias(run, topics, docs, k=3, collection=sizes).language_mix
    assert mix.doc_languages == ("de", "en", "fi", "ja")
    assert not any(row[3] for row in mix.shares)


def test_documents_of_another_collection() -> None:
    run, topics = parallel()
    with pytest.raises(DataError, match="'de:00' has no language among the 1 given, expected one"):
        language_bias(run, topics, {"de:07": "de"})
    with pytest.raises(DataError, match="run and qrels have documents in en, fi, the collection has none in"):
        language_bias(run, topics, DOC_LANGS, collection={"de": 8, "ja": 8})
    with pytest.raises(
        DataError, match="8 of 24 documents of run and qrels have no language, for example 'en:"
    ):
        language_bias(run, topics, {**DOC_LANGS, **{f"en:{number:02}": "" for number in range(8)}}, k=24)
    with pytest.raises(
        DataError, match="run 'r' has no hit for any of 12 queries, expected the run of these"
    ):
        language_bias(Run.from_hits("r", {"other": falling("de:00")}), topics, DOC_LANGS)


def test_options_that_make_no_sense_are_all_named() -> None:
    run, topics = parallel()
    with pytest.raises(UsageError) as raised:
        language_bias(run, topics, DOC_LANGS, k=0, target="even")
    assert str(raised.value).splitlines() == [
        "cutoff 0 of the language bias, expected 1 or more",
        "unknown target 'even' of AWRF, expected one of relevant, collection, uniform",
    ]


def test_similarities_reach_mrc() -> None:
    run, topics = parallel()
    shallow = Run.from_hits(
        "r", {query: falling(*(d.decode() for d in hits.docids[:4])) for query, hits in run.queries.items()}
    )
    whole = {
        query: {d: -float(rank) for rank, d in enumerate(hits.docids.tolist())}
        for query, hits in run.queries.items()
    }
    bias = language_bias(
        shallow,
        topics,
        DOC_LANGS,
        k=4,
        similarity=lambda query, ids: np.float32([whole[query][d] for d in ids]),
    )
    assert bias.mrc is not None
    assert bias.mrc.unscored == 0
    assert bias.mrc.mean == pytest.approx(mrc(run, topics, 4).mean)


def test_languages_from_a_collection(tmp_path: Path) -> None:
    docs = [{"_id": docid, "text": docid, "lang": language} for docid, language in DOC_LANGS.items()]
    docs.append({"_id": "xx:00", "text": "of no language"})
    queries = [{"_id": f"q{number}", "text": "q", "lang": LANGS[number]} for number in range(3)]
    qrels = {"q0": {"de:00": 1, "en:00": 1, "fi:01": 0}, "q1": {"en:01": 1}, "q2": {"fi:00": 1}}
    pool = load(write_folder(tmp_path, docs, queries, qrels))
    topics = load_topics(pool)
    run = Run.from_hits("r", {"q0": falling("en:02", "xx:00"), "q1": falling("xx:00")})
    wanted = documents_of(run, topics, 1)
    assert wanted == {"de:00", "en:00", "en:01", "fi:00", "en:02", "xx:00"}
    languages = pool_doc_languages(pool, [*wanted, "not:there"])
    assert languages == {docid: docid[:2] for docid in wanted - {"xx:00"}}
    with pytest.raises(DataError, match="'xx:00' has no language among the 5 given"):
        language_bias(run, topics, languages, k=1)
    assert pool_doc_languages(pool, []) == {}


def test_further_cutoffs_are_those_of_runs_looked_at_alone() -> None:
    run, topics = parallel(3)
    found = language_bias(run, topics, DOC_LANGS, k=3, further=Cutoffs(peer=(2, 3, 8), mrc=(1, 5)))
    for at, other in found.peer_at.items():
        alone = language_bias(run, topics, DOC_LANGS, k=at).peer
        assert (other.mean, other.per_language) == (alone.mean, alone.per_language)
        for number, language in enumerate(topics.languages):
            mine = peer_topics(run, topics, DOC_LANGS, at).values[topics.language_of == number]
            assert other.per_language[language] == pytest.approx(mine.mean())
    for at, correlation in found.mrc_at.items():
        alone_mrc = language_bias(run, topics, DOC_LANGS, k=at).mrc
        assert alone_mrc is not None
        assert (correlation.mean, correlation.per_language) == (alone_mrc.mean, alone_mrc.per_language)
    assert (list(found.peer_at), list(found.mrc_at)) == ([2, 3, 8], [1, 5])
    # All else is what it is without them.
    whole, plain = written(found), written(language_bias(run, topics, DOC_LANGS, k=3))
    assert {name: whole[name] for name in plain} == plain
    assert whole.keys() - plain.keys() == {"peer_at", "mrc_at"}


def test_cutoffs_as_they_are_written() -> None:
    assert parse_cutoffs(["MRC@5,10,20,", "PEER@20,100"]) == Cutoffs((20, 100), (5, 10, 20))
    assert parse_cutoffs(["peer@7", "mrc@7,7", "peer@7,1"]) == Cutoffs((7, 1), (7,))
    assert parse_cutoffs([]) == Cutoffs()


@pytest.mark.parametrize(
    "text", ["5", "mrc@", "mrc@0", "ndcg@5", "mrc@5 peer@6", "mrc@-1", "mrc@1.5", "mrc@٣"]
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected such as MRC@5,10,20 PEER@20,100"):
        parse_cutoffs([text])
