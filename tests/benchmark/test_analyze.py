"""`mimo analyze` from texts to tables, JSON and pictures, on the packaged sample and tiny checkpoints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr, sentence_transformer
from helpers.training_runs import finished, unfinished

from mimo_plugin.benchmark.analyze import analyze
from mimo_plugin.benchmark.settings import AnalyzeOptions, Role
from mimo_plugin.benchmark.texts import sample_texts
from mimo_plugin.cli import main
from mimo_plugin.collections.pool import load
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.geometry import alignment, uniformity
from mimo_plugin.evaluation.runs import write_run

PROMPTS = {"query": "query: ", "document": "passage of many languages: "}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("analyze")
    base = plain_xlmr(root / "base")
    pool = load("mimo-sample")
    queries = list(pool.queries_iter())[:200]
    docids = np.array([doc.doc_id for doc in pool.docs_iter()])
    rng = np.random.default_rng(0)
    hits = [
        (q.query_id, rng.choice(docids, 10, replace=False).tolist(), np.arange(10.0)[::-1]) for q in queries
    ]
    write_run(root / "noise.trec", hits, "noise")
    return {
        "root": str(root),
        "plain": str(base),
        "prompted": str(sentence_transformer(root / "prompted", base, prompts=PROMPTS)),
        "run": str(root / "noise.trec"),
        "single": write_folder(root / "single", documents(30, ["de"])),
        "mixed": write_folder(root / "mixed", documents(40)),
    }


def _mimo(*arguments: str) -> int:
    return main(["analyze", *arguments, "--no-progress"])


def _json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    found: dict[str, Any] = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    return found


@pytest.mark.slow
def test_everything(world: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "geometry.json"
    status = _mimo(
        *("mimo-sample", "--encoder", f"tiny={world['plain']}", world["prompted"]),
        *("--texts", "40", "--seed", "7", "--json", str(out)),
        *("--run", f"noise={world['run']}", "--hits-cutoff", "5", "--device", "cpu"),
        *("--fairness", "MRC@2,5", "PEER@4"),
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    found = _json(out)
    bias = found["language_bias"]["noise"]
    assert (list(bias["mrc_at"]), list(bias["peer_at"])) == (["2", "5"], ["4"])
    assert bias["mrc_at"]["5"] == bias["mrc"]
    assert all(f"{kind} by query language" in printed.out for kind in ("MRC@2", "MRC@5", "PEER@4"))
    geometry = found["geometry"]
    assert set(geometry) == {"texts", "encoders", "skipped"}
    assert list(geometry["encoders"]) == ["tiny", "prompted"]
    texts = sample_texts(load("mimo-sample"), ["mimo-sample"], count=40, seed=7)
    assert geometry["texts"] == {
        "collections": ["mimo-sample"],
        "role": "documents",
        "groups": 40,
        "vectors": len(texts.texts),
        "languages": texts.counts,
        "seed": 7,
    }
    for label in ("plain", "prompted"):
        student = Encoder(world[label], EncoderOptions(device="cpu"))
        vectors = student.encode_documents(texts.texts)
        one = geometry["encoders"]["tiny" if label == "plain" else label]
        assert (one["fingerprint"], one["dimension"], one["trail"]) == (student.fingerprint, 32, [])
        assert one["alignment"] == pytest.approx(alignment(vectors, texts.groups, texts.languages), rel=1e-4)
        assert one["alignment"] == pytest.approx(np.mean([pair[2] for pair in one["pair_alignment"]]))
        assert one["uniformity"] == pytest.approx(uniformity(vectors, seed=7), abs=1e-4)
        assert set(one["uniformity_per_language"]) == set(texts.counts)
        assert set(one["separability"]) == {"centroid", "knn", "neighbours", "folds", "chance"}
        distances = one["centroid_distances"]["distances"]
        assert np.shape(distances) == (14, 14)
        projection = one["projection"]
        assert len(projection["points"]) == len(texts.texts)
        assert [projection["languages"][point[2]] for point in projection["points"]] == list(texts.languages)
        assert len({point[3] for point in projection["points"]}) == 40
    bias = found["language_bias"]["noise"]
    assert (bias["cutoff"], bias["language_mix"]["queries"]) == (5, 200)
    summary = next(line for line in printed.out.splitlines() if line.startswith("tiny "))
    assert f"{geometry['encoders']['tiny']['alignment']:.4f}" in summary
    assert "Language bias of the first 5 hits" in printed.out
    assert "noise: share of the hits in each language" in printed.out


@pytest.mark.slow
def test_queries_are_encoded_as_queries_and_drawn(
    world: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pictures = tmp_path / "geometry.json", tmp_path / "pictures"
    arguments = ["--role", "queries", "--texts", "12", "--device", "cpu", "--format", "latex"]
    encoder = ["--encoder", f"a/b={world['prompted']}"]
    assert _mimo("mimo-sample", *encoder, *arguments, "--json", str(out), "--output", str(pictures)) == 0
    texts = sample_texts(load("mimo-sample"), ["mimo-sample"], role=Role.QUERIES, count=12)
    student = Encoder(world["prompted"], EncoderOptions(device="cpu"))
    expected = uniformity(student.encode_queries(texts.texts))
    assert _json(out)["geometry"]["encoders"]["a/b"]["uniformity"] == pytest.approx(expected, abs=1e-4)
    kinds = ("plane", "projection-a-b", "centroids", "pair-alignment")
    names = {path.name for path in pictures.iterdir()}
    assert names == {"tables.tex"} | {f"{kind}.{form}" for kind in kinds for form in ("png", "svg")}
    tables = (pictures / "tables.tex").read_text("utf-8")
    assert tables.count("\\begin{table}") == tables.count("\\end{table}") == 4
    assert str(pictures) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["single", "mixed"])
def test_a_collection_that_is_not_parallel(
    world: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "geometry.json"
    pictures = tmp_path / "pictures"
    arguments = ["--encoder", world["plain"], "--no-normalize", "--device", "cpu"]
    assert _mimo(world[name], *arguments, "--json", str(out), "--output", str(pictures)) == 0
    geometry = _json(out)["geometry"]
    (one,) = geometry["encoders"].values()
    assert (one["alignment"], one["pair_alignment"]) == (None, [])
    assert -8 <= one["uniformity"] <= 0
    assert "has no queries and no qrels" in geometry["skipped"]["alignment"]
    assert (one["separability"] is None) == (name == "single")
    assert ("separability" in geometry["skipped"]) == (name == "single")
    assert not (pictures / "plane.png").exists()
    assert (pictures / "centroids.svg").exists() == (name == "mixed")
    assert "–" in (pictures / "tables.txt").read_text("utf-8")


def test_trails(world: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "geometry.json"
    going = unfinished(tmp_path / "going", {3: True, 9: True})
    done = finished(tmp_path / "done")
    arguments = ["--texts", "10", "--device", "cpu", "--json", str(out)]
    assert _mimo("mimo-sample", "--encoder", str(going), str(done), *arguments) == 0
    geometry = _json(out)["geometry"]
    trail = geometry["encoders"]["going"]["trail"]
    assert [point["step"] for point in trail] == [3, 9]
    assert trail[1]["alignment"] == geometry["encoders"]["going"]["alignment"]
    texts = sample_texts(load("mimo-sample"), ["mimo-sample"], count=10)
    student = Encoder(str(going / "checkpoints/checkpoint-3"), EncoderOptions(device="cpu"))
    expected = alignment(student.encode_documents(texts.texts), texts.groups, texts.languages)
    assert trail[0]["alignment"] == pytest.approx(expected, rel=1e-4)
    assert geometry["encoders"]["done"]["trail"] == [
        {"step": 5, "alignment": 0.5, "uniformity": -2.0},
        {"step": 10, "alignment": None, "uniformity": -3.0},
    ]
    assert "on its dev collection and not on these texts" in geometry["skipped"]["done: trail"]
    assert "going: trail" not in geometry["skipped"]
    assert "done: checkpoints of the training run" in capsys.readouterr().out


def test_a_loaded_encoder_is_as_good_as_its_name(world: dict[str, str]) -> None:
    options, encoding = AnalyzeOptions(texts=10, progress=False), EncoderOptions(device="cpu")
    by_name = analyze(["mimo-sample"], [world["prompted"]], options=options, encoder_options=encoding)
    loaded = analyze(["mimo-sample"], [Encoder(world["prompted"], device="cpu")], options=options)
    assert loaded == by_name
    assert loaded.geometry is not None
    assert list(loaded.geometry.encoders) == ["prompted"]


def test_nothing_heavy_is_imported_before_all_is_checked() -> None:
    code = (
        "import sys; from mimo_plugin.cli import main; "
        "assert main(['analyze', 'mimo-sampel', '--encoder', '/none', '--run', 'none.trec']) == 1; "
        "print([name for name in ('torch', 'scipy', 'faiss', 'matplotlib', 'ranx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_encoder_that_gives_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    broken = plain_xlmr(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if name.endswith("output.LayerNorm.weight"))
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert _mimo("mimo-sample", "--encoder", str(broken), "--texts", "2", "--device", "cpu") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "broken gives NaN or infinity for one word" in printed.err


@pytest.mark.slow
def test_runs_alone(world: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bias.json"
    assert _mimo("mimo-sample", "--run", world["run"], "--json", str(out)) == 0
    printed = capsys.readouterr()
    assert "run 'noise' has 10 hits a query at most, fewer than the 20 of the language bias" in printed.err
    found = _json(out)
    assert found["geometry"] is None
    shares = np.array(found["language_bias"]["noise"]["language_mix"]["shares"])
    assert shares.sum(axis=1) == pytest.approx(1)
    row = next(line for line in printed.out.splitlines() if line.startswith("cs "))
    assert [float(cell) for cell in row.split()[1:]] == pytest.approx(shares[0], abs=0.0051)


@pytest.mark.parametrize(
    ("arguments", "status", "messages"),
    [
        (["mimo-sample"], 2, ["nothing to look at: name a checkpoint with --encoder, or a run with --run"]),
        (["--encoder", "{plain}"], 2, ["no COLLECTION was given, expected one, or --sts FILE"]),
        (["--sts", "none.tsv", "--run", "{run}"], 1, ["--sts needs an encoder", "none.tsv: no such file"]),
        (["mimo-sample", "--encoder", "{plain}", "--texts", "0"], 2, ["0 is not in the range x>=1"]),
        (
            ["mimo-sample", "--encoder", "{plain}", "--output", "{run}"],
            2,
            ["noise.trec: is a file, expected"],
        ),
        (["mimo-sample", "--run", "{run}", "--json", "{run}"], 2, ["is the file of the run 'noise'"]),
        (["{single}", "--run", "{run}"], 1, ["has no queries", "has no qrels"]),
        (["mimo-sample/de", "--run", "{run}"], 1, ["of its 200 queries are not topics", "--pooled"]),
        (
            [
                *(
                    "mimo-sampel",
                    "--encoder",
                    "/none",
                    "a={plain}",
                    "a={prompted}",
                    "--run",
                    "{run}",
                    "{run}",
                ),
                *("none.trec", "--json", ".", "--output", "{run}"),
            ],
            1,
            [
                *("mimo-sampel", "/none: no such directory", "two encoders are named 'a'"),
                *("two runs are named 'noise'", "none.trec: no such file", ".: is a directory"),
                "noise.trec: is a file",
            ],
        ),
    ],
)
def test_bad_input(
    world: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    messages: list[str],
) -> None:
    assert _mimo(*(argument.format(**world) for argument in arguments)) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    for message in messages:
        assert message in printed.err
