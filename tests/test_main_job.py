"""The main job on MIRACL and Mr. TyDi in their true layout, and the demo, through the command line."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest
from helpers import tiny_ir_datasets
from helpers.checkpoints import plain_xlmr

from mimo_plugin.cli import main
from mimo_plugin.collections.packaged import sample_table
from mimo_plugin.demo import DemoOptions, run_demo
from mimo_plugin.training.data import open_table
from mimo_plugin.training.models import StudentOptions
from mimo_plugin.training.recipe import Precision, Stage1Options, Stage2Options

pytestmark = pytest.mark.threads


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(plain_xlmr(tmp_path_factory.mktemp("checkpoint")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("collections", "topics", "documents"),
    [
        (("miracl/de/dev", "miracl/sw/dev"), {"de": 5, "sw": 5}, 60),
        (("mr-tydi/fi/test", "mr-tydi/ko/test"), {"fi": 3, "ko": 3}, 60),
    ],
)
def test_two_languages_with_colliding_ids(
    collections: tuple[str, ...], topics: dict[str, int], documents: int, checkpoint: str, tmp_path: Path
) -> None:
    index, run, scores = tmp_path / "index", tmp_path / "tiny.trec", tmp_path / "scores.json"
    assert main(["index", *collections, "--encoder", checkpoint, "--output", str(index)]) == 0
    docids = (index / "docid").read_text().splitlines()
    assert docids == [f"{lang}:{docid}" for lang in topics for docid in _in_file_order(lang)]
    assert (index / "lang").read_text().splitlines() == [docid[:2] for docid in docids]
    search = ["search", str(index), "--topics", *collections, "--output", str(run), "--hits", str(documents)]
    assert main(search) == 0
    copy = tmp_path / "copy.trec"
    copy.write_text(run.read_text())
    evaluate = ["evaluate", str(run), str(copy), "--baseline", "copy", "--json", str(scores), "--qrels"]
    assert main([*evaluate, *collections, "--measures", "recall@100,ndcg@10,mrr@100"]) == 0
    found = json.loads(scores.read_text())
    assert {lang: row["queries"] for lang, row in found["runs"]["tiny"]["per_language"].items()} == topics
    # Every document was retrieved, so each relevant one was, in the other language's neighbourhood or not.
    assert found["runs"]["tiny"]["macro"]["recall@100"] == 1.0
    assert found["runs"]["tiny"]["queries"]["missing"] == 0
    assert {row["p"] for row in found["comparisons"]} == {1.0}


def _in_file_order(lang: str) -> list[str]:
    docids = tiny_ir_datasets.docids()
    return docids[0::2] + docids[1::2] if tiny_ir_datasets.MIRACL_SHARDS.get(lang, 1) > 1 else docids


def test_collections_that_lack_a_part_are_named_together(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.trec"
    run.write_text("5 Q0 0#0 1 1.0 x\n")
    assert main(["evaluate", str(run), "--qrels", "miracl/de/test-b", "miracl/sw/test-b"]) == 1
    errors = capsys.readouterr().err
    assert "miracl/de/test-b has no qrels" in errors
    assert "miracl/sw/test-b has no qrels" in errors
    assert main(["search", str(tmp_path), "--topics", "miracl/de", "--output", str(run)]) == 1


def test_a_file_that_is_not_there_is_named_with_its_place(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "index"
    assert main(["index", "miracl/yo/dev", "--encoder", checkpoint, "--output", str(output)]) == 1
    errors = capsys.readouterr().err
    assert "miracl/v1.0/yo/docs" in errors
    assert len(errors.splitlines()) == 1
    assert not output.exists()


@pytest.mark.slow
def test_demo_on_a_part_of_the_sample(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl.gz"
    with gzip.open(sample_table(), "rb") as whole, gzip.open(table, "wb") as part:
        part.writelines(islice(whole, 80))
    short = {"batch_size": 16, "max_length": 32, "precision": Precision.FLOAT32}
    options = DemoOptions(
        table=table,
        student=StudentOptions(checkpoint="new:tiny", vocabulary=1500),
        stage1=Stage1Options(steps=4, **short),
        stage2=Stage2Options(steps=2, mini_batch_size=8, **short),
        progress=False,
    )
    said: list[str] = []
    demo = run_demo(tmp_path / "demo", said.append, options)
    kept = [*demo.runs, tmp_path / "demo" / "mimo" / "model" / "model.safetensors"]
    before = [path.read_bytes() for path in kept]
    assert demo.picture.read_bytes().startswith(b"\x89PNG")
    scores = tmp_path / "scores.json"
    arguments = ["evaluate", *map(str, demo.runs), "--qrels", demo.collection, "--json", str(scores)]
    assert main([*arguments, "--measures", "ndcg@10,success@1"]) == 0
    runs = json.loads(scores.read_text())["runs"]
    assert set(runs) == {"mimo", "xlco", "bm25", "hybrid"}
    # BM25 shares names and words with the description: chance would be far below.
    assert runs["bm25"]["mean"]["success@1"] > 0.3
    assert runs["mimo"]["queries"]["judged"] == runs["bm25"]["queries"]["judged"] > 0
    # No description that was trained on is searched.
    trained = set(open_table(tmp_path / "demo" / "data" / "table").dataset["query_id"])
    searched = {docid.split()[2].partition(":")[2] for docid in demo.runs[2].read_text().splitlines()}
    assert not trained & searched

    run_demo(tmp_path / "demo", said.append, options)
    assert [path.read_bytes() for path in kept] == before
    assert sum("was trained before" in line for line in said) == 3
    assert sum("nothing was encoded" in line for line in said) == 2


def test_topics_of_a_part_of_the_pool_keep_its_prefix(checkpoint: str, tmp_path: Path) -> None:
    index, run = tmp_path / "index", tmp_path / "run.trec"
    pool = ["miracl/de/dev", "mmarco/v2/de/dev"]
    assert main(["index", *pool, "--encoder", checkpoint, "--output", str(index)]) == 0
    assert main(["search", str(index), "--topics", "miracl/de/dev", "--output", str(run)]) == 0
    columns = [line.split() for line in run.read_text().splitlines()]
    # Both are German, so the collection's id takes the language's place, also where it is named alone.
    assert {line[0].rpartition(":")[0] for line in columns} == {"miracl/de"}
    assert {line[2].rpartition(":")[0] for line in columns} == {"miracl/de", "mmarco/v2/de"}
    assert main(["evaluate", str(run), "--qrels", *pool, "--measures", "recall@100"]) == 0
