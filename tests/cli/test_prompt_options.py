"""Prompts and dimension from the command line into manifests, and from there into searches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr, sentence_transformer

from mimo_plugin.cli import main
from mimo_plugin.core.artifact import sealed_text, unseal
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.open import open_index
from mimo_plugin.indexing.vectors import open_vectors

QUERIES = [
    {"_id": "q1", "text": "Suche Sprache", "lang": "de"},
    {"_id": "q2", "text": "haku kieli", "lang": "fi"},
]
DOCUMENTS = 12
PROMPTS = ("such such: ", "viele  ")
ASKED = ["--query-prompt", PROMPTS[0], "--document-prompt", PROMPTS[1]]
DIMENSION = 8


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = plain_xlmr(tmp_path_factory.mktemp("plain"))
    return sentence_transformer(tmp_path_factory.mktemp("hub") / "multilingual-e5-small", plain)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(DOCUMENTS), QUERIES, {"q1": {"d5": 1}})


def mimo(*arguments: object) -> None:
    assert main([*map(str, arguments), "--no-progress"]) == 0


def index(e5: Path, spec: str, output: Path, *options: object) -> Any:
    mimo("index", spec, "--encoder", e5, "--output", output, "--backend", "torch", *options)
    return open_index(output).manifest.plan


def scores(index_dir: Path, spec: str, output: Path, *options: object) -> dict[tuple[str, str], float]:
    mimo("search", index_dir, "--topics", spec, "--output", output, "--backend", "torch", *options)
    rows = [line.split() for line in output.read_text().splitlines()]
    return {(row[0], row[2]): float(row[4]) for row in rows}


def expected(e5: Path, index_dir: Path, **options: Any) -> dict[tuple[str, str], float]:
    """Inner products of an index's vectors with those of the queries."""
    student = Encoder(str(e5), EncoderOptions(device="cpu", backend="torch", known_prompts=False, **options))
    opened = open_index(index_dir)
    found = student.encode_queries([query["text"] for query in QUERIES]) @ opened.faiss.reconstruct_n(0, 12).T
    return {
        (query["_id"], opened.docids[row]): float(found[number, row])
        for number, query in enumerate(QUERIES)
        for row in range(DOCUMENTS)
    }


def same(found: dict[Any, float], wanted: dict[Any, float]) -> bool:
    return found.keys() == wanted.keys() and all(abs(found[key] - wanted[key]) <= 1e-5 for key in wanted)


def rewrite(directory: Path, **changes: Any) -> None:
    """A manifest as an earlier version wrote it; a field that is to be `...` is left out."""
    path = directory / "manifest.json"
    data, _ = unseal(path.read_bytes())
    plan = {**data["plan"], **changes}
    data["plan"] = {name: value for name, value in plan.items() if value is not ...}
    path.write_text(sealed_text(data, indent=2))


def test_an_index_says_the_prompts_and_search_takes_them(e5: Path, spec: str, tmp_path: Path) -> None:
    plan = index(e5, spec, tmp_path / "index", *ASKED)
    assert (plan.query_prompt, plan.prompt) == PROMPTS
    found = scores(tmp_path / "index", spec, tmp_path / "run")
    assert same(found, expected(e5, tmp_path / "index", query_prompt=PROMPTS[0]))
    other = scores(tmp_path / "index", spec, tmp_path / "other", "--query-prompt", "")
    assert same(other, expected(e5, tmp_path / "index", query_prompt=""))
    assert not same(found, other)
    # Said otherwise now: neither finished nor gone on with.
    again = ["index", spec, "--encoder", str(e5), "--output", str(tmp_path / "index"), "--backend", "torch"]
    assert main([*again, *ASKED, "--no-progress"]) == 0
    assert main([*again, *ASKED[:2], "--no-progress"]) == 1
    assert main([*again, *ASKED[2:], "--no-progress"]) == 1


def test_the_prompts_of_a_known_family(
    e5: Path, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = index(e5, spec, tmp_path / "index")
    assert (plan.query_prompt, plan.prompt) == ("query: ", "passage: ")
    said = [line for line in capsys.readouterr().err.splitlines() if "query: " in line]
    assert len(said) == 1
    assert said[0].startswith("mimo: warning: ")
    found = scores(tmp_path / "index", spec, tmp_path / "run")
    assert same(found, expected(e5, tmp_path / "index", query_prompt="query: "))
    assert "prompt" not in capsys.readouterr().err
    bare = index(e5, spec, tmp_path / "bare", "--no-known-prompts")
    assert (bare.query_prompt, bare.prompt) == ("", "")
    assert "prompt" not in capsys.readouterr().err
    found = scores(tmp_path / "bare", spec, tmp_path / "bare.run")
    assert same(found, expected(e5, tmp_path / "bare"))


def test_an_index_of_an_earlier_version_is_searched_as_before(
    e5: Path, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(e5, spec, tmp_path / "index", "--no-known-prompts")
    rewrite(tmp_path / "index", query_prompt=..., truncate=..., normalized=...)
    capsys.readouterr()
    assert same(scores(tmp_path / "index", spec, tmp_path / "run"), expected(e5, tmp_path / "index"))
    assert "prompt" not in capsys.readouterr().err
    # Nor is it made again.
    index(e5, spec, tmp_path / "index", "--no-known-prompts")
    assert "complete already" in capsys.readouterr().out
    again = ["index", spec, "--encoder", str(e5), "--output", str(tmp_path / "index"), "--backend", "torch"]
    assert main(again) == 1
    assert "--document-prompt '' keeps that" in capsys.readouterr().err


def test_parts_and_vectors_keep_the_query_prompt(e5: Path, spec: str, tmp_path: Path) -> None:
    for part in "12":
        options = ["--shard", f"{part}/2", "--shard-size", 4, *ASKED, "--backend", "torch"]
        mimo("encode", spec, "--encoder", e5, "--output", tmp_path / part, *options)
    mimo("index", "--vectors", tmp_path / "1", tmp_path / "2", "--output", tmp_path / "index")
    plan = open_index(tmp_path / "index").manifest.plan
    assert (plan.query_prompt, plan.prompt, plan.normalized) == (*PROMPTS, True)
    # An earlier version's part says nothing of it.
    rewrite(tmp_path / "1", query_prompt=..., normalized=...)
    joined = open_vectors([tmp_path / "1", tmp_path / "2"]).plan
    assert (joined.query_prompt, joined.normalized) == (PROMPTS[0], None)
    rewrite(tmp_path / "1", query_prompt="other")
    assert main(["index", "--vectors", f"{tmp_path}/1", f"{tmp_path}/2", "--output", f"{tmp_path}/no"]) == 1


def test_indexes_for_different_prompts_are_searched_with_one_that_is_said(
    e5: Path, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_folder(tmp_path / "other", [{"_id": "x", "text": "talo", "lang": "fi"}])
    index(e5, spec, tmp_path / "one", *ASKED)
    index(e5, other, tmp_path / "two", *ASKED, "--query-prompt", "else ")
    command = [
        "search",
        f"{tmp_path}/one",
        f"{tmp_path}/two",
        "--topics",
        spec,
        "--output",
        f"{tmp_path}/run",
    ]
    assert main(command) == 2
    assert "'such such: '" in capsys.readouterr().err
    assert main([*command, "--query-prompt", "else ", "--no-progress"]) == 0


def test_a_shortened_index_is_searched_as_it_was_made(e5: Path, spec: str, tmp_path: Path) -> None:
    plan = index(e5, spec, tmp_path / "index", *ASKED, "--dimension", DIMENSION)
    assert (plan.dimension, plan.truncate, plan.normalized) == (DIMENSION, DIMENSION, True)
    vectors = open_index(tmp_path / "index").faiss.reconstruct_n(0, DOCUMENTS)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-5
    found = scores(tmp_path / "index", spec, tmp_path / "run")
    assert same(found, expected(e5, tmp_path / "index", query_prompt=PROMPTS[0], dimension=DIMENSION))
    command = ["search", f"{tmp_path}/index", "--topics", spec, "--output", f"{tmp_path}/no"]
    assert main([*command, "--dimension", "9"]) == 1
    index(e5, spec, tmp_path / "whole", *ASKED)
    whole = open_index(tmp_path / "whole").faiss.reconstruct_n(0, DOCUMENTS)[:, :DIMENSION]
    assert np.abs(vectors - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() <= 1e-6


def test_too_many_dimensions_are_refused(
    e5: Path, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["index", spec, "--encoder", str(e5), "--output", f"{tmp_path}/no", "--dimension", "33"]
    assert main(command) == 2
    assert "gives 32 dimensions" in capsys.readouterr().err
    mimo("encode", spec, "--encoder", e5, "--output", tmp_path / "vectors", "--backend", "torch")
    export = ["export", f"{tmp_path}/vectors", "--to", "jsonl", "--output", f"{tmp_path}/x.jsonl"]
    assert main([*export, "--dimension", "33"]) == 2
    assert "have 32 dimensions" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("normalize", ["--normalize", "--no-normalize"])
def test_an_export_is_cut_and_then_normalised(
    e5: Path, spec: str, tmp_path: Path, normalize: str, said: bool
) -> None:
    place = tmp_path / "vectors"
    mimo("encode", spec, "--encoder", e5, "--output", place, "--backend", "torch", normalize)
    if not said:
        rewrite(place, normalized=...)
    whole = open_vectors([place]).batch(0).vectors
    wanted = whole[:, :DIMENSION]
    if normalize == "--normalize":
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    file = tmp_path / "x.jsonl"
    mimo("export", place, "--to", "jsonl", "--output", file, "--dimension", DIMENSION)
    found = np.array([json.loads(line)["vector"] for line in file.read_text().splitlines()])
    assert np.abs(found - wanted).max() <= 1e-6
    # Brought in again with the encoder's name, they are searched as they are.
    given = ["--encoder", e5, "--dimension", DIMENSION, normalize, "--backend", "torch"]
    mimo("encode", "--import", file, *given, "--output", tmp_path / "imported")
    mimo("index", "--vectors", tmp_path / "imported", "--output", tmp_path / "index")
    plan = open_index(tmp_path / "index").manifest.plan
    assert (plan.truncate, plan.query_prompt) == (DIMENSION, "query: ")
    options = {"query_prompt": "query: ", "dimension": DIMENSION, "normalize": normalize == "--normalize"}
    found_scores = scores(tmp_path / "index", spec, tmp_path / "run")
    assert same(found_scores, expected(e5, tmp_path / "index", **options))


def test_analysis_takes_prompts_and_dimension(e5: Path, spec: str, tmp_path: Path) -> None:
    def uniformity(*options: object) -> float:
        file = tmp_path / "numbers.json"
        mimo("analyze", spec, "--encoder", f"m={e5}", "--json", file, "--backend", "torch", *options)
        return float(json.loads(file.read_text())["geometry"]["encoders"]["m"]["uniformity"])

    plain = uniformity()
    assert uniformity("--document-prompt", "passage: ") == plain
    assert uniformity("--document-prompt", "") != plain
    assert uniformity("--dimension", DIMENSION) != plain
    assert uniformity("--role", "queries", "--query-prompt", "a b c ") != uniformity("--role", "queries")
