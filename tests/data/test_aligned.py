"""`mimo data aligned`: parallel collections become the table of stage 2, in ir_datasets' real classes."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_ir_datasets
from helpers.tiny_ir_datasets import passage, question

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, DataError, MimoError, UsageError
from mimo_plugin.data.aligned import (
    Member,
    make_table,
    mmarco_members,
    parse_members,
)
from mimo_plugin.data.options import AlignedOptions, Positives
from mimo_plugin.data.writers import Made
from mimo_plugin.training.data import open_table

HOME = Path(os.environ["IR_DATASETS_HOME"])
# mMARCO's codes, by the table's
CODES = {"de": "de", "en": "en", "nl": "dt"}
Texts = dict[str, str]


def make(output: Path, *specs: str, mmarco: tuple[str, ...] = (), **options: Any) -> Made:
    return make_table(parse_members(specs, mmarco), output, AlignedOptions(**options))


def rows(directory: Path) -> list[dict[str, Any]]:
    return list(open_table(directory).dataset)


def folder(directory: Path, queries: Texts, passages: Texts, positives: list[tuple[str, str, int]]) -> str:
    """A collection of one language in BEIR layout."""
    (directory / "qrels").mkdir(parents=True)
    for name, texts in (("queries", queries), ("corpus", passages)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    judged = "".join("\t".join(map(str, line)) + "\n" for line in positives)
    (directory / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    return f"path:{directory}"


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """English whole; German without query 2 and passage b, French with an empty passage c."""
    judged = [("1", "a", 1), ("2", "a", 2), ("2", "b", 1), ("3", "c", 1), ("3", "a", 0), ("9", "a", 1)]
    english = folder(
        tmp_path / "english",
        {key: f"query {key}" for key in "123"},
        {key: f"text {key}" for key in "abc"},
        judged,
    )
    german = folder(
        tmp_path / "german",
        {key: f"Frage {key}" for key in "13"},
        {key: f"Text {key}" for key in "ac"},
        judged,
    )
    french = folder(
        tmp_path / "french",
        {key: f"question {key}" for key in "123"},
        {"a": "texte a", "b": "texte b" * 5, "c": " "},
        judged,
    )
    return [f"en={english}", f"de={german}", f"fr={french}"]


def test_mmarco_is_aligned_with_its_english_original(tmp_path: Path) -> None:
    made = make(tmp_path / "table", mmarco=("de", "nl"))
    assert made.manifest.source["positives"] == {"kind": "triples", "collection": "mmarco/v2/de/train"}
    assert made.manifest.source["collections"]["nl"] == "mmarco/v2/dt/train"
    assert made.manifest.languages == {"de": 8, "en": 8, "nl": 8}
    assert made.manifest.dropped == {}
    found = rows(tmp_path / "table")
    # the triples hold each pair twice, and passage number 5 belongs to query 200
    assert [(row["query_id"], row["passage_id"]) for row in found] == [
        (str(number), str(number - 195)) for number in range(200, 208)
    ]
    for row in found:
        assert row["langs"] == list(CODES)
        assert row["queries"] == [question(code, int(row["query_id"])) for code in CODES.values()]
        assert row["passages"] == [passage(code, f"{row['passage_id']}#0") for code in CODES.values()]


def test_qrels_give_the_same_rows_here_and_the_choice_is_kept(tmp_path: Path) -> None:
    triples = make(tmp_path / "triples", mmarco=("de",))
    qrels = make(tmp_path / "qrels", mmarco=("de",), positives=Positives.QRELS, positives_from="en")
    assert triples.manifest.fingerprint == qrels.manifest.fingerprint
    assert qrels.manifest.source["positives"] == {"kind": "qrels", "collection": "msmarco-passage/train"}
    with pytest.raises(ArtifactError, match="made otherwise: its positives differ"):
        make(tmp_path / "triples", mmarco=("de",), positives=Positives.QRELS)
    assert not make(tmp_path / "triples", mmarco=("de",)).new


def test_missing_texts_are_counted_and_their_language_left_out(folders: list[str], tmp_path: Path) -> None:
    made = make(tmp_path / "table", *folders)
    found = {(row["query_id"], row["passage_id"]): row["langs"] for row in rows(tmp_path / "table")}
    assert found == {
        ("1", "a"): ["de", "en", "fr"],
        ("2", "a"): ["en", "fr"],
        ("2", "b"): ["en", "fr"],
        ("3", "c"): ["de", "en"],
    }
    assert made.manifest.dropped == {
        "empty": {"fr": 1},
        # judged query 9 is in no collection
        "no text in the anchor language": {"en": 1},
        "query missing": {"de": 3, "en": 1, "fr": 1},
    }
    assert made.manifest.languages == {"de": 2, "en": 4, "fr": 3}
    assert all(text.strip() for row in rows(tmp_path / "table") for text in row["queries"] + row["passages"])


def test_rows_can_be_asked_to_have_every_language(folders: list[str], tmp_path: Path) -> None:
    made = make(tmp_path / "table", *folders, require_all=True)
    assert [row["langs"] for row in rows(tmp_path / "table")] == [["de", "en", "fr"]]
    assert made.manifest.dropped["row not in every language"] == {"en": 4}


def test_long_texts_can_be_left_out(folders: list[str], tmp_path: Path) -> None:
    made = make(tmp_path / "table", *folders, max_characters=20)
    assert made.manifest.dropped["too long"] == {"fr": 1}
    assert made.manifest.dropped["no text in another language"] == {"en": 1}
    assert len(rows(tmp_path / "table")) == 3


def test_another_anchor(folders: list[str], tmp_path: Path) -> None:
    made = make(tmp_path / "table", *folders[1:], anchor="fr")
    assert made.manifest.anchor == "fr"
    assert [row["langs"] for row in rows(tmp_path / "table")] == [["de", "fr"]]


def test_a_language_that_no_row_has_is_an_error(folders: list[str], tmp_path: Path) -> None:
    others = [
        f"{lang}={folder(tmp_path / lang, {'x': 'domanda'}, {'y': 'testo'}, [('x', 'y', 1)])}"
        for lang in ("it", "es")
    ]
    with pytest.raises(DataError) as caught:
        make(tmp_path / "table", *folders, *others)
    assert str(caught.value).splitlines() == [
        f"{lang}: no row has it (query missing 5), expected at least one: check that the collections have "
        "the same ids, or leave the language out"
        for lang in ("it", "es")
    ]
    assert not (tmp_path / "table").exists()


def test_a_table_without_english_is_refused_at_once(tmp_path: Path) -> None:
    message = "no collection in the anchor language en, found de: add --collection en=msmarco-passage/train"
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "table", "mmarco/v2/de/train")
    assert not (tmp_path / "table").exists()


def test_everything_wrong_with_the_collections_is_said_together(tmp_path: Path) -> None:
    with pytest.raises(MimoError) as caught:
        make(
            tmp_path / "table",
            "en=msmarco-passage/train",
            "fr=mmarco/v2/de/train",
            "de=mmarco/v2/de",
            "it=mmarco/v2/it/train",
            "it=no/such/thing",
            positives_from="zh",
        )
    text = str(caught.value)
    assert "it: 2 collections, expected one for each language" in text
    assert "--positives-from zh: expected one of en, fr, de, it" in text
    assert "'no/such/thing': unknown collection" in text
    assert "mmarco/v2/de has no queries, expected a collection with queries: mmarco/v2/de/dev" in text
    assert "fr=mmarco/v2/de/train: its documents are in de, expected fr" in text
    assert f"put it at {HOME}/mmarco/v2/italian_collection.tsv (from https://huggingface.co/" in text
    assert not (tmp_path / "table").exists()


def test_positives_that_a_collection_does_not_have(folders: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"german has no triples to name .*: give --positives qrels$"):
        make(tmp_path / "table", *folders, positives=Positives.TRIPLES)
    # msmarco-passage's own triples are not among the tiny files
    with pytest.raises(
        DataError, match=r"^msmarco-passage/train: .*put it at .*msmarco-passage/train/docpairs"
    ):
        make(tmp_path / "table", mmarco=("de",), positives_from="en")
    nothing = folder(tmp_path / "nothing", {"1": "q"}, {"a": "t"}, [("1", "a", 0)])
    with pytest.raises(DataError, match="its qrels name no positive passage"):
        make(tmp_path / "table", folders[0], f"it={nothing}")


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path) -> None:
    triples = HOME / "mmarco" / "triples.train.ids.small.tsv"
    whole = triples.read_bytes()
    triples.write_bytes(whole[:-1].rpartition(b"\n")[0] + b"\n207\t1")
    try:
        with pytest.raises(DataError, match=rf"^{triples}:16: 2 columns, expected 3"):
            make(tmp_path / "table", mmarco=("de",))
    finally:
        triples.write_bytes(whole)
    assert not (tmp_path / "table").exists()


def test_changed_files_of_a_folder_are_other_sources(folders: list[str], tmp_path: Path) -> None:
    assert make(tmp_path / "table", *folders).new
    assert not make(tmp_path / "table", *folders).new
    (tmp_path / "french" / "queries.jsonl").write_text('{"_id": "1", "text": "autre"}\n', encoding="utf-8")
    with pytest.raises(ArtifactError, match="its collections differ"):
        make(tmp_path / "table", *folders)
    assert make(tmp_path / "table", *folders, overwrite=True).manifest.languages["fr"] == 1


def test_languages_of_mmarco() -> None:
    assert mmarco_members(["nl", "dt", "en", "ar"]) == [
        Member("en", "msmarco-passage/train"),
        Member("nl", "mmarco/v2/dt/train"),
        Member("ar", "mmarco/v2/ar/train"),
    ]
    everything = mmarco_members(["all"])
    assert len({member.lang for member in everything}) == 14
    # all of them are ids that ir_datasets knows, and say the language that they stand for
    assert [lang for lang, _ in everything] == [parse_members([spec])[0].lang for _, spec in everything]
    with pytest.raises(
        UsageError, match="--mmarco xx: not a language of mMARCO v2, expected all, or some of ar"
    ):
        mmarco_members(["de", "xx"])


def test_a_folder_must_be_given_its_language(folders: list[str]) -> None:
    bare = folders[0].removeprefix("en=")
    with pytest.raises(UsageError, match=rf"has no known language, expected LANG={bare}"):
        parse_members([bare])


def test_the_command_prints_rows_of_language_pairs(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["data", "aligned", "--collection", *folders, "--output", str(tmp_path / "out"), "--stats"]) == 0
    )
    out = capsys.readouterr().out
    assert "4 rows in 3 languages, anchor en" in out
    matrix = out.split("passage language across)\n")[1].splitlines()
    assert [line.split() for line in matrix[2:]] == [
        ["de", "-", "2", "1"],
        ["en", "2", "-", "3"],
        ["fr", "1", "3", "-"],
    ]


def test_the_tiny_files_have_the_words_of_each_language() -> None:
    assert {tiny_ir_datasets.passage(code, "5#0") for code in CODES.values()} == {
        "Der See 5 0 liegt im Norden",
        "The lake 5 0 lies in the north",
        "Het meer 5 0 ligt in het noorden",
    }


def test_documents_of_another_language_are_refused(folders: list[str], tmp_path: Path) -> None:
    english = tmp_path / "mixed"
    shutil.copytree(tmp_path / "english", english)
    lines = (english / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "lang": "fi"})
    (english / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="'a' of its passages is in fi, expected en"):
        make(tmp_path / "table", f"en=path:{english}", folders[1], positives=Positives.QRELS)
    assert not (tmp_path / "table").exists()


def test_one_collection_for_two_languages(folders: list[str], tmp_path: Path) -> None:
    spec = folders[0].partition("=")[2]
    with pytest.raises(UsageError, match=r"was given for en and de, expected another collection for each"):
        make(tmp_path / "table", f"en={spec}", f"de={spec}", positives=Positives.QRELS)
