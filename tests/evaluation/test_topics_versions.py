"""Language versions of documents: the same id after the language, and judgments that agree."""

from mimo_plugin.evaluation.topics import make_topics, version_groups

DOCIDS, LANGS = ["de:7", "fi:7", "de:8", "fi:9"], ["de", "fi", "de", "fi"]


def test_versions_of_a_parallel_collection() -> None:
    topics = make_topics({"de:1": {"de:7": 1, "fi:7": 1}}, {"de:1": "de"})
    assert version_groups(DOCIDS, LANGS, topics) == ["7", "7", "8", "9"]


def test_ids_that_agree_by_chance() -> None:
    """A pool of collections in one language each: ids begin anew in every one."""
    topics = make_topics(
        {"de:1": {"de:7": 1, "de:8": 1, "fi:7": 0}, "fi:1": {"fi:7": 1}}, {"de:1": "de", "fi:1": "fi"}
    )
    assert version_groups(DOCIDS, LANGS, topics) == DOCIDS


def test_only_the_documents_own_language_is_taken_off() -> None:
    topics = make_topics({"1": {"de:7": 1, "fi:7": 1}}, {"1": "de"})
    docids = ["de:7", "fi:7", "x:7", "7"]
    assert version_groups(docids, ["de", "fi", "en", "en"], topics) == ["7", "7", "x:7", "7"]
