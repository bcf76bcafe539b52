"""Training data on disk: what is written is what is read, and nothing unfinished passes for finished."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.artifact import BUILDING
from mimo_plugin.core.errors import ArtifactError, DataError, UsageError
from mimo_plugin.data import writers
from mimo_plugin.data.statistics import kept_and_dropped, language_figures, language_pairs, statistics_text
from mimo_plugin.data.writers import PairsWriter, TableWriter
from mimo_plugin.training.data import open_pairs, open_table

MADE: dict[str, Any] = {"anchor": "en", "parameters": {"seed": 1}, "source": {"file": "a"}}
Pair = tuple[str, str, str]
PAIRS: list[Pair] = [
    ("ein Haus", "de", "a house"),
    ("une maison", "fr", "a house"),
    ("a house", "en", "a house"),
]

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda text: not text.isspace()
)
langs = st.sampled_from(["de", "en", "ja", "pt"])
table_rows = st.lists(
    st.dictionaries(langs, st.tuples(texts, texts), min_size=2).filter(lambda row: "en" in row),
    min_size=1,
    max_size=20,
)
in_tmp_path = settings(max_examples=25)


def write_pairs(directory: Path, pairs: list[Pair] = PAIRS, **changes: Any) -> None:
    with PairsWriter(directory, **{**MADE, **changes}) as writer:
        for pair in pairs:
            writer.add(*pair)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}


@in_tmp_path
@given(pairs=st.lists(st.tuples(texts, langs, texts), min_size=1, max_size=30))
def test_pairs_are_read_as_written(
    pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path_factory.mktemp("pairs")
    with monkeypatch.context() as patch:
        # Small enough for several row groups and several files.
        patch.setattr(writers, "ROW_GROUP_BYTES", 100)
        patch.setattr(writers, "SHARD_BYTES", 400)
        write_pairs(directory, pairs)
    stored = open_pairs(directory)
    assert [(row["text"], row["lang"], row["anchor"]) for row in stored.dataset] == pairs
    assert stored.manifest.rows == len(pairs)
    assert stored.manifest.languages == dict(sorted(Counter(lang for _, lang, _ in pairs).items()))
    assert names(directory) == {"manifest.json", *stored.manifest.files}
    size = sum(len((text + anchor).encode()) for text, _, anchor in pairs)
    assert len(stored.manifest.files) >= size / 700


@in_tmp_path
@given(rows=table_rows)
def test_tables_are_read_as_written_and_counted(
    rows: list[dict[str, tuple[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("table")
    with TableWriter(directory, **MADE) as writer:
        for number, row in enumerate(rows):
            assert writer.add(str(number), f"p{number}", row)
    table = open_table(directory)
    for number, (row, found) in enumerate(zip(rows, table.dataset, strict=True)):
        assert (found["query_id"], found["passage_id"]) == (str(number), f"p{number}")
        assert found["langs"] == sorted(row)
        assert found["queries"] == [row[lang][0] for lang in sorted(row)]
        assert found["passages"] == [row[lang][1] for lang in sorted(row)]
    pairs = language_pairs(table)
    known = sorted({lang for row in rows for lang in row})
    assert pairs == {
        (one, other): sum(one in row and other in row for row in rows)
        for one, other in permutations(known, 2)
    }
    for lang, figures in language_figures(table).iterrows():
        own = [row[lang] for row in rows if lang in row]
        assert figures["rows"] == len(own) == table.manifest.languages[lang]
        assert figures["queries"] == pytest.approx(sum(len(query) for query, _ in own) / len(own))
        assert figures["passages"] == pytest.approx(sum(len(text) for _, text in own) / len(own))


def test_plain_datasets_loads_what_is_written(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs")
    found = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "pairs" / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert found.column_names == ["text", "lang", "anchor"]
    assert found["text"][:] == [text for text, _, _ in PAIRS]


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    write_pairs(tmp_path / "one")
    write_pairs(tmp_path / "same", parameters={"seed": 2})
    write_pairs(tmp_path / "other", PAIRS[::-1])
    write_pairs(tmp_path / "anchor", anchor="de")
    one, same, other, anchor = (
        open_pairs(tmp_path / name).fingerprint for name in ("one", "same", "other", "anchor")
    )
    assert one == same
    assert len({one, other, anchor}) == 3


def test_rows_without_the_anchor_or_a_second_language_are_dropped_and_counted(tmp_path: Path) -> None:
    with TableWriter(tmp_path, **MADE) as writer:
        assert writer.add("1", "1", {"en": ("a", "b"), "de": ("c", "d")})
        assert not writer.add("1", "2", {"de": ("a", "b"), "fr": ("c", "d")})
        assert not writer.add("1", "3", {"en": ("a", "b")})
        writer.drop("too long", "de", 4)
    assert writer.manifest.rows == 1
    assert writer.manifest.dropped == {
        "no text in another language": {"en": 1},
        "no text in the anchor language": {"en": 1},
        "too long": {"de": 4},
    }
    text = kept_and_dropped(writer.manifest)
    assert text.startswith("1 rows in 2 languages, anchor en\n")
    assert "Rows that have both languages" in statistics_text(open_table(tmp_path))


def test_a_table_without_the_anchor_language_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"no rows are left \(dropped: no text in the anchor language 1"),
        TableWriter(tmp_path / "table", **MADE) as writer,
    ):
        writer.add("1", "1", {"de": ("a", "b"), "fr": ("c", "d")})
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((" \n", "de", "a"), "a text in 'de' is empty"),
        (("a", "de", ""), "an anchor of a text in 'de' is empty"),
        (("a", "", "b"), "language '': expected a code"),
        (("a\ud800", "de", "b"), "lone surrogate .U.D800. at character 1"),
    ],
)
def test_what_is_no_text_is_refused_and_nothing_written(pair: Pair, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_pairs(tmp_path / "pairs", [*PAIRS, pair])
    assert not (tmp_path / "pairs").exists()


def test_the_same_ids_twice_are_refused(tmp_path: Path) -> None:
    row = {"en": ("a", "b"), "de": ("c", "d")}
    with TableWriter(tmp_path, **MADE) as writer:
        writer.add("1", "2", row)
        with pytest.raises(DataError, match="query '1' and passage '2' occur twice"):
            writer.add("1", "2", row)


def test_a_killed_writer_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from mimo_plugin.data import writers\n"
        "writers.ROW_GROUP_BYTES, writers.SHARD_BYTES = 10, 20\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with writers.PairsWriter(path, anchor='en', parameters={}, source={}) as writer:\n"
        "    for _ in range(9):\n"
        "        writer.add('ein Haus', 'de', 'a house')\n"
        "    os._exit(9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == 9
    assert list(tmp_path.glob(f"{BUILDING}/*.parquet"))
    with pytest.raises(ArtifactError, match="has no manifest.json, expected training data"):
        open_pairs(tmp_path)
    write_pairs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "pairs-00000.parquet"}


def test_a_finished_directory_is_found_refused_or_replaced(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    manifest = open_pairs(tmp_path).manifest
    assert PairsWriter(tmp_path, **MADE).finished() == manifest
    with pytest.raises(ArtifactError, match=r"made otherwise: seed is 2, there it is 1\. Choose another"):
        PairsWriter(tmp_path, **{**MADE, "parameters": {"seed": 2}}).finished()
    with pytest.raises(
        ArtifactError, match=r"made otherwise: anchor is 'de', there it is 'en'; its file differ"
    ):
        PairsWriter(tmp_path, **{**MADE, "anchor": "de", "source": {"file": "b"}}).finished()
    with pytest.raises(ArtifactError, match="holds stage-1 pairs, expected a stage-2 table"):
        TableWriter(tmp_path, **MADE).finished()
    with pytest.raises(ArtifactError, match="holds finished data"):
        write_pairs(tmp_path)
    assert PairsWriter(tmp_path, **MADE, overwrite=True).finished() is None
    # What was there stays until the new data is whole.
    with pytest.raises(DataError):
        write_pairs(tmp_path, [("", "de", "a")], overwrite=True)
    assert open_pairs(tmp_path).manifest == manifest
    write_pairs(tmp_path, PAIRS[:1], overwrite=True)
    assert [row["text"] for row in open_pairs(tmp_path).dataset] == ["ein Haus"]
    assert len(list(tmp_path.glob(".*.arrow"))) == 1


def test_foreign_directories_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"holds something else \(thesis.tex\): --output must name"):
        write_pairs(tmp_path, overwrite=True)
    index = tmp_path / "index"
    index.mkdir()
    (index / "manifest.json").write_text(json.dumps({"format": "mimo-index"}), encoding="utf-8")
    with pytest.raises(
        ArtifactError, match=r"holds something else \(.*manifest.json of another kind, or corrupted\)"
    ):
        write_pairs(index, overwrite=True)
    with pytest.raises(ArtifactError, match="thesis.tex is a file: --output must name"):
        write_pairs(tmp_path / "thesis.tex")
    with pytest.raises(UsageError, match="is not a directory where you may write"):
        write_pairs(tmp_path / "thesis.tex" / "pairs")
    with pytest.raises(UsageError, match="cannot be written: File name too long"):
        write_pairs(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=f"cannot be written, {tmp_path} is not a directory where you may"):
        write_pairs(tmp_path / "pairs")


def test_data_in_a_place_without_write_permission_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "pairs")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(os, "access", lambda *_: False)
    for _ in range(2):
        assert len(open_pairs(tmp_path / "pairs").dataset) == len(PAIRS)
    assert names(tmp_path / "pairs") == {"manifest.json", "pairs-00000.parquet"}
    assert not list((tmp_path / "pairs").glob(".*.arrow"))


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with PairsWriter(tmp_path, **MADE) as writer:
        writer.add(*PAIRS[0])
        with pytest.raises(ArtifactError, match=rf"is being written by process {os.getpid()} on "):
            write_pairs(tmp_path)
    assert open_pairs(tmp_path).manifest.rows == 1


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no such directory, expected training data \(a stage-2 table\)"):
        open_table(tmp_path / "nowhere")
    write_pairs(tmp_path)
    with pytest.raises(ArtifactError, match="holds stage-1 pairs, expected a stage-2 table"):
        open_table(tmp_path)
    shard = tmp_path / "pairs-00000.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(
        ArtifactError, match=rf"has {len(content) - 1} bytes, the manifest says {len(content)}"
    ):
        open_pairs(tmp_path)
    shard.write_bytes(bytes(len(content)))
    with pytest.raises(ArtifactError, match="pairs-00000.parquet does not have the SHA-256"):
        open_pairs(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "rows": "many"}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"the manifest of training data \(stage-1 pairs\): rows: "):
        open_pairs(tmp_path)
