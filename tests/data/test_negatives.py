"""`mimo data negatives`: which passages are negatives, from which index, and work that was cut short."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from helpers import tiny_training
from helpers.beir import write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, DataError
from mimo_plugin.data import negatives as mining
from mimo_plugin.data.negatives import choose, mine_negatives
from mimo_plugin.data.options import NegativesOptions
from mimo_plugin.data.writers import Made, TableWriter
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.training.data import DataManifest, Format, Table, open_table
from mimo_plugin.training.examples import Relevance

ROWS, QUERIES = 40, 32
# Random weights: all cosines are near 1.
SHARE = 0.988
CPU = EncoderOptions(device="cpu", backend="torch")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in which eight queries have two passages, and two passages have one text."""
    root = tmp_path_factory.mktemp("negatives")
    tiny_training.student(root / "model", dropout=0.0)
    with TableWriter(root / "table", anchor="en", parameters={"given": 1}, source={"made": "up"}) as writer:
        writer.drop("empty", "de", 7)
        for number in range(ROWS):
            query, passage = number % QUERIES, max(number, 1)
            texts = {
                lang: tuple(
                    tiny_training.text(template[lang], n)
                    for template, n in ((tiny_training.QUERY, query), (tiny_training.PASSAGE, passage))
                )
                for lang in ("de", "en")
            }
            writer.add(f"q{query}", f"p{number}", texts)
    return root


def mine(world: Path, output: Path, index: Path | None = None, **options: Any) -> Made:
    given = NegativesOptions(**{"max_share": SHARE, "hits": ROWS, "progress": False, **options})
    encoder = str(world / "model") if index is None else None
    return mine_negatives(world / "table", output, given, CPU, index=index, encoder=encoder)


@pytest.fixture(scope="module")
def whole(world: Path) -> Path:
    made = mine(world, world / "whole", skip=1)
    assert made.new
    return world / "whole"


def rows(directory: Path) -> list[dict[str, Any]]:
    return list(open_table(directory).dataset)


@pytest.mark.threads
def test_they_are_those_of_sentence_transformers(world: Path, whole: Path) -> None:
    from sentence_transformers.util import mine_hard_negatives

    from mimo_plugin.encoder.encoder import Encoder

    table = rows(world / "table")
    pairs = [(row["queries"][1], row["passages"][1]) for row in table]
    queries, passages = zip(*pairs, strict=True)
    found = mine_hard_negatives(
        Dataset.from_dict({"query": queries, "passage": passages}),
        Encoder(str(world / "model"), CPU).model,
        relative_margin=1 - SHARE,
        range_min=1,
        range_max=ROWS - 3,
        num_negatives=3,
        output_format="labeled-list",
        verbose=False,
    )
    expected = {row["query"]: row["passage"][1:] for row in found}
    text_of = {row["passage_id"]: row["passages"][1] for row in table}
    mined = [[text_of[passage_id] for passage_id in row["negatives"]] for row in rows(whole)]
    assert mined == [expected.get(query, []) for query in queries]
    counts = {len(one) for one in mined}
    assert 3 in counts
    assert len(counts) > 1


def test_the_rest_of_the_table_is_as_it_was(world: Path, whole: Path) -> None:
    plain = [{**row, "negatives": None} for row in rows(world / "table")]
    assert [{**row, "negatives": None} for row in rows(whole)] == plain
    before, after = open_table(world / "table").manifest, open_table(whole).manifest
    assert (after.rows, after.languages, after.dropped) == (before.rows, before.languages, before.dropped)
    assert after.parameters.items() >= {**before.parameters, "skip": 1, "max_share": SHARE}.items()
    assert after.source["rows"] == before.source
    assert after.negatives is not None
    assert sum(after.negatives.rows.values()) == ROWS
    assert "negatives" not in json.loads((world / "table" / "manifest.json").read_text())
    assert after.fingerprint != before.fingerprint


def test_rows_of_one_query_share_their_negatives(whole: Path) -> None:
    found = rows(whole)
    for one, other in zip(found, found[QUERIES:], strict=False):
        assert one["query_id"] == other["query_id"]
        assert one["negatives"] == other["negatives"]


class Killed(BaseException):
    """Ends the work where a signal would."""


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.threads
def test_cut_short_it_goes_on_and_ends_with_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "QUERIES_AT_ONCE", 10)
    mine(world, tmp_path / "whole")
    index = tmp_path / "whole-index"
    written, searched = [], []
    write, find = mining.write_text, mining.find_hits

    def killed(path: Path, text: str) -> None:
        if len(written) == 2:
            raise Killed
        written.append(path)
        write(path, text)

    def counted(*arguments: Any, **named: Any) -> Any:
        searched.append(len(arguments[2]))
        return find(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(mining, "write_text", killed)
        with pytest.raises(Killed):
            mine(world, tmp_path / "cut", index)
    assert not (tmp_path / "cut" / "manifest.json").exists()
    # A part that is no longer what was written is made again.
    written[1].write_bytes(written[1].read_bytes().replace(b"p1", b"p2"))
    monkeypatch.setattr(mining, "find_hits", counted)
    assert mine(world, tmp_path / "cut", index).new
    assert searched == [10, 10, QUERIES - 30]
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"manifest.json", "rows-00000.parquet"}
    assert not mine(world, tmp_path / "cut", index).new
    assert len(searched) == 3
    with pytest.raises(ArtifactError, match="negatives is 2, there it is 3"):
        mine(world, tmp_path / "cut", index, negatives=2)
    assert mine(world, tmp_path / "cut", index, negatives=2, overwrite=True).new


def test_the_index_of_a_collection(world: Path, tmp_path: Path, whole: Path) -> None:
    """A pool in two languages, with documents that the table does not have."""
    table = rows(world / "table")
    docs = [
        {"_id": row["passage_id"], "text": text, "lang": lang}
        for row in table
        for lang, text in zip(row["langs"], row["passages"], strict=True)
    ]
    specs = []
    for lang in ("de", "en"):
        own = [doc for doc in docs if doc["lang"] == lang]
        more = [{"_id": f"x{n}", "text": own[n]["text"], "lang": lang} for n in range(5)]
        specs.append(write_folder(tmp_path / lang, own + more))
    model = str(world / "model")
    arguments = ["--encoder", model, "--device", "cpu", "--backend", "torch", "--no-progress"]
    assert main(["index", *specs, *arguments, "--output", str(tmp_path / "pool")]) == 0
    made = mine(world, tmp_path / "out", tmp_path / "pool", hits=2 * ROWS + 10)
    assert made.manifest.negatives is not None
    assert made.manifest.negatives.missed == 0
    known = {row["passage_id"] for row in table}
    found = [row["negatives"] for row in rows(tmp_path / "out")]
    assert known.issuperset(name for names in found for name in names)
    assert any(found)
    # In English alone it is the index that the command makes.
    arguments += ["--output", str(tmp_path / "english")]
    assert main(["index", specs[1], *arguments]) == 0
    mine(world, tmp_path / "same", tmp_path / "english", hits=2 * ROWS, skip=1)
    assert [row["negatives"] for row in rows(tmp_path / "same")] == [row["negatives"] for row in rows(whole)]


def test_an_index_of_other_documents(world: Path, tmp_path: Path) -> None:
    spec = write_folder(tmp_path / "c", [{"_id": "x", "text": "haku", "lang": "fi"}])
    arguments = ["--encoder", str(world / "model"), "--device", "cpu", "--no-progress"]
    assert main(["index", spec, *arguments, "--output", str(tmp_path / "ix")]) == 0
    with pytest.raises(DataError, match="no negative was found in .*ix: of 32 queries, 32 have a passage"):
        mine(world, tmp_path / "out", tmp_path / "ix")
    assert not (tmp_path / "out" / "manifest.json").exists()


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Queries and passages with repeated ids and repeated texts."""
    pairs = st.tuples(st.integers(0, 5), st.integers(0, 7))
    ids = draw(st.lists(pairs, min_size=2, max_size=16, unique=True))
    queries, passages = (
        draw(st.lists(st.integers(0, 5), min_size=8, max_size=8)) for _ in ("query", "passage")
    )
    rows = [
        {
            "query_id": f"q{query}",
            "passage_id": f"p{passage}",
            "langs": ["de", "en"],
            "queries": ["f", f"q {queries[query]}"],
            "passages": ["a", f"p {passages[passage]}"],
        }
        for query, passage in ids
    ]
    nothing: dict[str, Any] = {name: {} for name in ("languages", "dropped", "parameters", "source", "files")}
    manifest = DataManifest(format=Format.TABLE, anchor="en", rows=len(rows), versions={}, **nothing)
    return Table(manifest, Dataset.from_list(rows))


@given(tables(), st.data())
@settings(max_examples=60)
def test_never_a_relevant_passage_nor_one_of_equal_text(data: Table, draw: st.DataObject) -> None:
    relevance = Relevance.of(data)
    relevant, _ = relevance.conflicts()
    table = list(data.dataset)
    number_of = {row["passage_id"]: n for row, n in zip(table, relevance.passages.tolist(), strict=True)}
    scores = draw.draw(st.lists(st.floats(-1, 1), min_size=len(number_of), max_size=len(number_of)))
    ranked = sorted(zip(scores, number_of.items(), strict=True), reverse=True)
    hits = [(passage_id, number, score) for score, (passage_id, number) in ranked]
    options = NegativesOptions(
        negatives=draw.draw(st.integers(1, 4)),
        skip=draw.draw(st.integers(0, 2)),
        max_share=draw.draw(st.sampled_from([0.0, 0.9, 1.0, 1e9])),
    )
    score_of = {passage_id: score for passage_id, _, score in hits}
    text_of = {row["passage_id"]: row["passages"][1] for row in table}
    for row, query in zip(table, relevance.queries.tolist(), strict=True):
        found = choose(hits, relevant[query], options)
        assert found is not None
        assert len(found) <= options.negatives
        own = {
            other["passage_id"]
            for other in table
            if other["query_id"] == row["query_id"] or other["queries"] == row["queries"]
        }
        assert own.isdisjoint(found)
        assert {text_of[one] for one in own}.isdisjoint(text_of[one] for one in found)
        assert len({text_of[one] for one in found}) == len(found)
        assert [score_of[one] for one in found] == sorted((score_of[one] for one in found), reverse=True)
        if options.max_share == 1.0:
            best = (max(score for _, number, score in hits if number == one) for one in relevant[query])
            assert max((score_of[one] for one in found), default=-1) <= min(best)
        # Without the query's own passages among the hits nothing is known.
        assert (
            choose([hit for hit in hits if hit[1] not in relevant[query]], relevant[query], options) is None
        )


def test_the_command(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--max-share", str(SHARE), "--hits", "40", "--device", "cpu", "--no-progress"]
    command = ["data", "negatives", str(world / "table"), "--encoder", str(world / "model"), *arguments]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert "negatives: 3 in " in capsys.readouterr().out
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert "finished before from the same sources" in capsys.readouterr().out


def test_bad_input(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(world / "table")
    assert main(["data", "negatives", table, "--output", table, "--hits", "3"]) == 2
    found = capsys.readouterr().err
    assert "is the table itself, expected another directory" in found
    assert "nothing to search with: name an index with --index, or a checkpoint with --encoder" in found
    assert "--hits 3 cannot hold the query's own passage, --skip 0 others and --negatives 3" in found
    wrong = ["--index", str(tmp_path / "none"), "--encoder", "/none", "--output", str(tmp_path / "out")]
    assert main(["data", "negatives", str(tmp_path / "pairs"), *wrong]) == 1
    found = capsys.readouterr().err
    assert "pairs: no such directory, expected training data (a stage-2 table)" in found
    assert "none: no such directory, expected an index" in found
    assert "/none: no such directory" in found
    assert not (tmp_path / "out").exists()
