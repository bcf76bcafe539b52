"""Systems of an experiment that are not trained, against the commands that make their runs by themselves."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import plain_xlmr
from helpers.tiny_experiment import write_collection, write_recipe, write_world
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from mimo_plugin.cli import main
from mimo_plugin.data.writers import PairsWriter, TableWriter
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.evaluation.runs import read_run

SEEDS = (1, 2)
OTHERS = {
    # Before its parts: it is made after them.
    "both": {"fusion": ["teacher", "bm25"], "method": "rrf", "weights": [2, 1]},
    "start": {"encoder": "student"},
    "teacher": {"encoder": "teacher"},
    "bm25": {"bm25": "plain"},
    "hybrid": {"fusion": ["xlco", "bm25"], "method": "sum"},
}
VECTORS = ("same-language ndcg@20", "alignment", "uniformity")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = tmp_path_factory.mktemp("world")
    write_world(world)
    return write_recipe(
        world,
        student={"checkpoint": "plain", "layers": 1},
        teacher={"checkpoint": "teacher", "max_length": 12, "passage_prompt": "passage: "},
        systems={"xlco": {"objective": "xlco"}},
        others=OTHERS,
        baseline="bm25",
    )


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    assert run(recipe, output) == 0
    return output


def run(recipe: Path, output: Path, *options: str) -> int:
    return main(
        ["experiment", str(recipe), "--output", str(output), "--device", "cpu", "--no-progress", *options]
    )


def place(output: Path, system: str, seed: int | None = None) -> Path:
    (found,) = output.glob(f"systems/{system}-??????????")
    return (found if seed is None else found / f"seed-{seed}") / "scores" / "test"


def scores(output: Path, system: str, seed: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place(output, system, seed) / "scores.json").read_text("utf-8"))
    return found


def hits(file: Path) -> dict[str, list[tuple[str, float]]]:
    queries = read_run(file, "run").queries
    return {
        name: list(zip((docid.decode() for docid in one.docids.tolist()), one.scores.tolist(), strict=True))
        for name, one in queries.items()
    }


@pytest.mark.slow
def test_runs_are_those_of_the_commands(recipe: Path, finished: Path, tmp_path: Path) -> None:
    collection, made = f"path:{recipe.parent}/test", str(tmp_path / "run.trec")
    assert main(["bm25", collection, "--output", made, "--hits", "100", "--no-progress"]) == 0
    assert hits(tmp_path / "run.trec") == hits(place(finished, "bm25") / "run.trec.gz")

    def fused(one: Path, other: Path, *options: str) -> dict[str, list[tuple[str, float]]]:
        runs = [str(path / "run.trec.gz") for path in (one, other)]
        named = [f"{name}={file}" for name, file in zip("ab", runs, strict=True)]
        assert main(["fuse", *named, "--output", made, "--hits", "100", *options, "--no-progress"]) == 0
        return hits(tmp_path / "run.trec")

    bm25 = place(finished, "bm25")
    for seed in SEEDS:
        expected = fused(place(finished, "xlco", seed), bm25, "--method", "sum")
        assert hits(place(finished, "hybrid", seed) / "run.trec.gz") == expected
    expected = fused(place(finished, "teacher"), bm25, "--weights", "2,1")
    assert hits(place(finished, "both") / "run.trec.gz") == expected
    (cut,) = finished.glob("students/*/cut")
    assert scores(finished, "start")["encoder"] == Encoder(str(cut)).fingerprint
    assert scores(finished, "teacher")["encoding"] == {"max_length": 12, "document_prompt": "passage: "}
    assert not list(finished.rglob("index"))


@pytest.mark.slow
def test_they_stand_in_the_same_tables_and_tests(finished: Path) -> None:
    content = json.loads((finished / "results.json").read_text("utf-8"))["collections"]["test"]
    assert list(content["systems"]) == ["xlco", *OTHERS]
    for system in ("start", "teacher", "bm25", "both"):
        found = content["systems"][system]
        assert (found["seeds"], found["steps"]) == ([], {})
        value = found["values"]["ndcg@20"]
        mean = np.mean(scores(finished, system)["per_query"]["ndcg@20"])
        assert value == {"mean": pytest.approx(mean, abs=1e-12), "deviation": None, "per_seed": {}}
        undefined = {name for name, value in found["values"].items() if value["mean"] is None}
        assert undefined == (set() if system in ("start", "teacher") else set(VECTORS))
    assert content["systems"]["hybrid"]["seeds"] == [1, 2]
    assert content["systems"]["hybrid"]["values"]["ndcg@20"]["deviation"] is not None
    ids = scores(finished, "bm25")["query_ids"]
    numbers = sorted({name[3:] for name in ids})

    def units(system: str) -> list[float]:
        seeds = SEEDS if content["systems"][system]["seeds"] else (None,)
        per_seed = [scores(finished, system, seed)["per_query"]["ndcg@20"] for seed in seeds]
        values = dict(zip(ids, np.mean(per_seed, axis=0), strict=True))
        return [sum(value for name, value in values.items() if name[3:] == number) for number in numbers]

    assert [one["system"] for one in content["contrasts"]] == ["xlco", "both", "start", "teacher", "hybrid"]
    base = units("bm25")
    expected = [ttest_rel(units(one["system"]), base).pvalue for one in content["contrasts"]]
    assert [one["p"] for one in content["contrasts"]] == pytest.approx(expected, rel=1e-9)
    corrected = multipletests(expected, method="holm")[1]
    assert [one["p_corrected"] for one in content["contrasts"]] == pytest.approx(corrected, rel=1e-9)
    lines = (finished / "results.md").read_text("utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith("| bm25")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:4] == ["bm25", "–", "–", f"{content['systems']['bm25']['values']['ndcg@20']['mean']:.4f}"]
    assert cells.count("–") == 2 + len(VECTORS)
    assert "only" not in "\n".join(lines)
    picture = (finished / "results.svg").read_text("utf-8")
    assert all(f">{name}<" in picture for name in ("test", "ndcg@20", "xlco", *OTHERS))
    assert (finished / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_only_what_is_missing_is_scored(
    recipe: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    files = {path: path.read_bytes() for path in output.glob("results.*")}
    assert run(recipe, output) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("11 of 11 steps are done")
    assert {path: path.read_bytes() for path in output.glob("results.*")} == files
    # A run without its scores, as a kill leaves it: fusions wait for it, and are the same again.
    (place(output, "bm25") / "scores.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in output.glob("systems/*/seed-?/training/manifest.json")}
    capsys.readouterr()
    assert run(recipe, output, "--only", "hybrid") == 0
    said = capsys.readouterr().out
    assert "hybrid, seed 1 on test: left out, there are no scores of bm25" in said
    assert run(recipe, output) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].endswith("7 of 11 steps are done")
    assert times == {path: path.stat().st_mtime_ns for path in times}
    found = {path.name: path.read_bytes() for path in files}
    assert found["results.md"] == files[output / "results.md"]
    assert found["results.svg"] == files[output / "results.svg"]


def test_the_recipe_of_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own text over a tiny world; another checkpoint stands for the packaged one."""
    source = Path(__file__).parents[2] / "performance" / "pretrained.yaml"
    text = source.read_text("utf-8").replace("packaged:multilingual-e5-small", "plain")
    (tmp_path / source.name).write_text(text, encoding="utf-8")
    plain_xlmr(tmp_path / "plain")
    data = tmp_path / "data" / "debian"
    with PairsWriter(data / "pairs", anchor="en", parameters={}, source={"made": "up"}) as pairs:
        for number in range(80):
            pairs.add(f"Haus {number}", "de", f"house {number}")
    with TableWriter(data / "table", anchor="en", parameters={}, source={"made": "up"}) as table:
        for number in range(80):
            texts = {lang: (f"{lang} {number}", f"{lang} text {number}") for lang in ("de", "en")}
            table.add(f"q{number}", f"p{number}", texts)
    for collection in (data / "dev", data.with_name("lohelp") / "test"):
        collection.parent.mkdir(exist_ok=True)
        write_collection(collection)
    assert run(tmp_path / source.name, tmp_path / "out", "--dry-run") == 0
    steps = capsys.readouterr().out.splitlines()
    once = [(other, on) for other in ("start", "e5", "teacher") for on in ("debian", "help")]
    assert steps[:7] == [
        "to do  smaller student",
        *(f"to do  scores of {other} on {on}" for other, on in once),
    ]
    # The student; four systems once, a warm-up, and seven systems and a fusion per seed, on two collections.
    assert steps[-1].endswith(f"0 of {1 + 4 * 2 + 3 * (1 + 7 + 8 * 2)} steps are done")
    assert "to do  scores of hybrid, seed 3 on help" in steps
