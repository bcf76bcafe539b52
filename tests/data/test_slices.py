"""`mimo data slices`: names and rare words against counts by hand, and the way into `mimo evaluate`."""

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers.beir import write_folder
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.collections.dataset import collection
from mimo_plugin.data.slices import by_entities, by_rarity, name_in, words_of
from mimo_plugin.evaluation.topics import Topics, load_topics, make_topics


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("a player for mp3 files", "en", True),
        ("uses LibreOffice", "en", True),
        ("HTML parser", "en", True),
        ("HTML-Parser", "de", True),
        ("who was president of France", "en", True),
        ("Who was it? Nobody knows", "en", False),
        ("Creating Controls in the Dialog Editor", "en", None),
        ("Barack Obama", "en", None),
        ("A LOUD QUESTION", "en", None),
        ("the 21st or 2nd chapter", "en", False),
        ("What should I do", "en", False),
        ("ein Programm ohne Namen", "de", None),
        ("просмотр файлов PDF", "ru", True),
        ("столица страны Франция", "ru", True),
        ("столица страны", "ru", False),
        ("CDの内容を表示", "ja", True),
        ("フランスの首都", "ja", None),
        ("भारत की राजधानी", "hi", None),
        ("", "en", False),
    ],
)
def test_what_looks_like_a_name(text: str, lang: str, expected: bool | None) -> None:
    assert name_in(text, lang) is expected


def test_texts_in_lower_case_throughout_do_not_tell() -> None:
    assert name_in("who was president of france", "en", cased=False) is None
    assert name_in("an mp3 player", "en", cased=False) is True


def _topics(texts: dict[str, str]) -> Topics:
    """Topics whose ids end alike are versions of one."""
    return make_topics(
        {name: {f"d{name.partition(':')[2]}": 1} for name in texts},
        {name: name.partition(":")[0] for name in texts},
    )


def test_versions_of_a_topic_are_in_one_slice() -> None:
    texts = {
        "en:1": "editor for Debian",
        "fr:1": "éditeur pour Debian",
        "ja:1": "エディター",
        "en:2": "An editor for all",
        "fr:2": "Un éditeur pour Tous",
        "it:2": "Un editor per tutti",
        "ja:3": "音楽",
        "en:4": "Not known in France",
    }
    topics = _topics(texts)
    found = by_entities(topics, texts)
    named = {name: [topics.query_ids[place] for place in places] for name, places in found.items()}
    # Two of three versions of 2 say no; nothing can be told of 3.
    assert named == {
        "entity": ["en:1", "en:4", "fr:1", "ja:1"],
        "no-entity": ["en:2", "fr:2", "it:2"],
    }


@given(st.lists(st.text(max_size=20), min_size=1, max_size=12))
def test_no_topic_is_an_entity_and_none(contents: list[str]) -> None:
    texts = {f"{lang}:{at // 2}": text for at, text in enumerate(contents) for lang in [("en", "fr")[at % 2]]}
    topics = _topics(texts)
    found = by_entities(topics, texts)
    assert not set(found["entity"]) & set(found["no-entity"])
    assert found == by_entities(topics, texts)
    in_slice = {place for places in found.values() for place in places}
    assert all(len({one in in_slice for one in block}) == 1 for block in _blocks(topics))


def _blocks(topics: Topics) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for place, block in enumerate(topics.block_of.tolist()):
        found.setdefault(block, []).append(place)
    return list(found.values())


def test_words() -> None:
    assert list(words_of("Don't STOP, Straße 2!")) == ["don", "t", "stop", "strasse", "2"]
    # Vowel signs are marks, not letters.
    assert list(words_of("हिन्दी भाषा")) == ["हिन्दी", "भाषा"]
    assert list(words_of("東京都のPC")) == ["東京", "京都", "都の", "pc"]
    assert list(words_of("猫 ｱﾆﾒ")) == ["猫", "アニ", "ニメ"]


WORDS = st.sampled_from(["Fluss", "Haus", "baum", "日本", "x"])
TEXTS = st.lists(WORDS, max_size=4).map(" ".join)


@given(st.lists(TEXTS, min_size=1, max_size=8), st.lists(TEXTS, max_size=8), st.floats(0.05, 0.95))
def test_rarity_is_that_of_the_rarest_word(queries: list[str], docs: list[str], share: float) -> None:
    pool = collection(
        docs={f"d{at}": {"text": text, "lang": "de"} for at, text in enumerate(docs)}
        | {"f": {"text": "Fluss Haus baum 日本 x", "lang": "fi"}},
        queries={f"q{at}": {"text": text, "lang": "de"} for at, text in enumerate(queries)},
        qrels={f"q{at}": {f"d{at}": 1} for at in range(len(queries))},
    )
    topics = load_topics(pool)
    texts = {query.query_id: query.text for query in pool.queries_iter()}
    found, cuts = by_rarity(topics, texts, pool, share)
    lowest = {
        place: min(sum(word.casefold() in doc.casefold().split() for doc in docs) for word in text.split())
        for place, text in ((place, texts[query_id]) for place, query_id in enumerate(topics.query_ids))
        if text
    }
    counts = Counter(lowest.values())
    if not docs or len(counts) < 2:
        assert not cuts
        assert not any(found.values())
        return
    assert found["rare"] == [place for place, value in lowest.items() if value <= cuts["de"]]
    assert found["common"] == [place for place, value in lowest.items() if value > cuts["de"]]
    away = {
        cut: abs(sum(counts[value] for value in counts if value <= cut) - share * len(lowest))
        for cut in sorted(counts)[:-1]
    }
    assert away[cuts["de"]] == min(away.values())


def test_from_the_collection_to_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {
        "en:1": "history of the Debian project",
        "fi:1": "mitä Debian on",
        "en:2": "how the weather was",
        "fi:2": "millainen sää oli",
        "en:3": "where the sea is",
        "fi:3": "missä meri on",
    }
    docs = [
        {"_id": f"{name}-{at}", "text": text if at else text.rpartition(" ")[2], "lang": name[:2]}
        for name, text in texts.items()
        for at in range(1 + int(name[3]))
    ]
    queries = [{"_id": name, "text": text, "lang": name[:2]} for name, text in texts.items()]
    qrels = {name: {f"{lang}:{name[3:]}-1": 1 for lang in ("en", "fi")} for name in texts}
    folder = write_folder(tmp_path / "c", docs, queries, qrels)
    output = tmp_path / "new" / "slices.tsv"
    command = ["data", "slices", folder, "--output", str(output), "--no-progress"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "rare: the rarest word is in at most so many documents: en 1, fi 1" in printed
    written = output.read_bytes()
    assert written.decode().splitlines() == [
        "topic\tslice",
        "en:1\tentity",
        "fi:1\tentity",
        *(f"{lang}:{number}\tno-entity" for lang in ("en", "fi") for number in (2, 3)),
        "en:1\trare",
        "fi:1\trare",
        *(f"{lang}:{number}\tcommon" for lang in ("en", "fi") for number in (2, 3)),
    ]
    assert main(command) == 0
    assert output.read_bytes() == written
    run = tmp_path / "run.trec"
    run.write_text("".join(f"{name} Q0 {name}-1 1 1.0 x\n" for name in texts))
    scores = tmp_path / "scores.json"
    command = ["evaluate", str(run), "--qrels", folder, "--slices", str(output), "--json", str(scores)]
    assert main(command) == 0
    assert list(json.loads(scores.read_text())["slices"]) == ["entity", "no-entity", "rare", "common"]
    # A pool has its own ids, here and there.
    capsys.readouterr()
    assert main(["data", "slices", folder, "--output", str(output), "--by", "entities", "--pooled"]) == 0
    assert output.read_text().splitlines()[1] == "c:en:1\tentity"


def test_all_problems_are_said_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "slices", "no-such-thing", "--output", str(tmp_path), "--by", "rarety,entities"]
    assert main([*command, "--rare-share", "1"]) == 1
    errors = capsys.readouterr().err
    for message in (
        "--by rarety; near: rarity",
        "--rare-share 1, expected",
        "is a directory",
        "no-such-thing",
    ):
        assert message in errors
