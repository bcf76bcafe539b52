"""Figures that a collection does not allow are shown as such, never as 0."""

import json
from pathlib import Path

import pytest
from helpers.beir import write_folder
from helpers.tiny_experiment import passage, query, write_recipe, write_world

from mimo_plugin.cli import main


@pytest.mark.slow
def test_a_collection_without_parallel_texts(tmp_path: Path) -> None:
    write_world(tmp_path)
    numbers = range(6)
    # Every text is there in one language only, and every query's answer is in another one.
    documents = [{"_id": f"d{n}", "text": passage("en", n), "lang": "en"} for n in numbers]
    queries = [{"_id": f"q{n}", "text": query("de", n), "lang": "de"} for n in numbers]
    write_folder(tmp_path / "cross", documents, queries, {f"q{n}": {f"d{n}": 1} for n in numbers})
    recipe = write_recipe(
        tmp_path,
        collections={"cross": "path:cross"},
        data={"table": "table"},
        systems={"xlco": {"objective": "xlco"}},
        student={"checkpoint": "plain"},
        seeds=[3],
        baseline=None,
    )
    output = tmp_path / "out"
    assert main(["experiment", str(recipe), "--output", str(output), "--device", "cpu", "--no-progress"]) == 0
    found = json.loads((output / "results.json").read_text(encoding="utf-8"))["collections"]["cross"]
    values = {name: value["mean"] for name, value in found["systems"]["xlco"]["values"].items()}
    undefined = {name for name, value in values.items() if value is None}
    assert undefined == {"same-language ndcg@20", "alignment", "mrc@20"}
    assert values["own language@20"] == 0
    assert values["peer@20"] == 1
    text = (output / "results.md").read_text(encoding="utf-8")
    for said in ("alignment: none of 6 texts has versions in two languages", "mrc@20: none of 6 topics"):
        assert said in text
    assert text.count("| – ") + text.count(" – |") >= 3
    # A checkpoint that exists is the student as it is: there is no new one.
    assert not (output / "students").exists()
