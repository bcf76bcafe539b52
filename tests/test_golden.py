"""Everything that other programs read, as it was written down: options and help of every command, every
`--json`, `results.json`, every manifest.

`MIMO_GOLDEN=write` writes the files of `tests/golden/` anew; the change then shows in the diff.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from helpers.beir import write_folder
from helpers.bench import parallel_folder, write_config
from helpers.tiny_experiment import write_recipe, write_world
from sentence_transformers import SentenceTransformer

from mimo_plugin.cli import main, mimo
from mimo_plugin.encoder.packaged import teacher_directory

GOLDEN = Path(__file__).parent / "golden"
# What differs from machine to machine, from day to day or from release to release.
_MASKED = re.compile(
    r"seconds|version|fingerprint|sha256|checksum|seal|environment|commit|created|digest|^size$|bytes"
    r"|memory|^host|^platform|hardware|^date$|^command$"
)
_HEX = re.compile(r"\b[0-9a-f]{12,64}\b")
# How many segments Lucene writes depends on how its threads run.
_SEGMENT = re.compile(r"_\w+\.\w+")


def _masked(value: Any, key: str = "") -> Any:
    if key and key != "format_version" and _MASKED.search(key):
        # Absent and present stay different.
        return None if value is None else f"<{key}>"
    if isinstance(value, dict):
        return {
            _text(name): _masked(item, name) for name, item in value.items() if not _SEGMENT.fullmatch(name)
        }
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return _text(value) if isinstance(value, str) else value


def _kinds(value: Any) -> Any:
    """Numbers without their values: those of a student that was just trained are another processor's own."""
    if isinstance(value, dict):
        return {name: _kinds(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_kinds(item) for item in value]
    return "<number>" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _text(value: str) -> str:
    return _HEX.sub("<hash>", value.replace(str(Path.cwd()), "<here>"))


def _differences(expected: Any, found: Any, place: str = "") -> Iterator[str]:
    """Where two values differ; numbers that another processor rounds otherwise are the same."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted({*expected, *found}):
            if name not in found or name not in expected:
                yield f"{place}/{name}: {'gone' if name in expected else 'new'}"
            else:
                yield from _differences(expected[name], found[name], f"{place}/{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for position, pair in enumerate(zip(expected, found, strict=True)):
            yield from _differences(*pair, f"{place}[{position}]")
    elif isinstance(expected, float) and isinstance(found, int | float):
        if not np.isclose(expected, found, rtol=0.02, atol=0.02):
            yield f"{place}: {found} where {expected} was written down"
    elif expected != found or type(expected) is not type(found):
        yield f"{place}: {found!r} where {expected!r} was written down"


def _check(name: str, found: Any) -> None:
    path = GOLDEN / f"{name}.json"
    if os.environ.get("MIMO_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    expected = json.loads(path.read_text("utf-8"))
    # JSON has no tuples.
    assert list(_differences(expected, json.loads(json.dumps(found)))) == []


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _commands(found, f"{name} {child}")


def _option(parameter: click.Parameter) -> dict[str, Any]:
    described = parameter.to_info_dict()
    kept = {name: described.get(name) for name in ("opts", "secondary_opts", "required", "nargs", "multiple")}
    default = described.get("default")
    return {
        **kept,
        "type": {name: item for name, item in described["type"].items() if name != "name"},
        # Click's own mark of "no default" has changed between its releases.
        "default": None if default is None or "UNSET" in repr(default) else repr(default),
        "help": described.get("help"),
    }


def test_options_and_help() -> None:
    found = {
        name: {
            "help": command.help,
            "parameters": {str(option.name): _option(option) for option in command.params},
        }
        for name, command in _commands(mimo, "mimo")
    }
    _check("commands", found)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which the commands below run, with relative paths."""
    root = tmp_path_factory.mktemp("golden")
    before = Path.cwd()
    os.chdir(root)
    parallel_folder(Path("c"))
    # Tokenizers that the tests train differ from run to run; the packaged model does not.
    model = SentenceTransformer(str(teacher_directory()), device="cpu")
    model.prompts = {"query": "query: ", "document": "passage: "}
    model.save(str(Path("m")))
    write_world(Path("t"))
    write_recipe(Path("t"), teacher={"checkpoint": "packaged:all-MiniLM-L6-v2"})
    write_folder(Path("part"), [{"_id": "x", "text": "haku", "lang": "fi"}])
    yield root
    os.chdir(before)


def _run(command: str) -> None:
    assert main(command.split()) == 0, command


def _json(path: str) -> Any:
    return _masked(json.loads(Path(path).read_text("utf-8")))


@pytest.mark.slow
def test_vectors_indexes_and_runs(world: Path) -> None:
    _run("encode path:c --encoder m --output vectors --device cpu --no-progress")
    _check("vectors", _json("vectors/manifest.json"))
    _run("index --vectors vectors --output ix --no-progress")
    _check("index", _json("ix/manifest.json"))
    _run("index path:c --encoder m --output hnsw --factory hnsw --device cpu --no-progress")
    _check("index_hnsw", _json("hnsw/manifest.json"))
    _run("index path:part --encoder m --output ix2 --device cpu --no-progress")
    _run("merge ix ix2 --output merged --no-progress")
    _check("index_merged", _json("merged/manifest.json"))
    _run("export ix --to lucene-flat --output lucene --no-progress")
    _check("export", _json("lucene/manifest.json"))
    _run("search ix --topics path:c --hits 20 --output a.trec --no-progress")
    _run("search hnsw --topics path:c --hits 5 --output b.trec --no-progress")
    lines = Path("a.trec").read_text("utf-8").splitlines()
    _check("run", [lines[0].split()[i] for i in (1, 3, 5)] + [len(lines)])
    _run("fuse a.trec b.trec --output f.trec")
    _run(
        "evaluate a.trec b.trec f.trec --qrels path:c --measures ndcg@5,recall@10,mrr --baseline b "
        "--json scores.json"
    )
    _check("evaluate", _json("scores.json"))
    _run("analyze path:c --encoder m --run a=a.trec --json analysis.json --no-progress")
    _check("analyze", _json("analysis.json"))


@pytest.mark.slow
def test_a_reproduction(world: Path) -> None:
    hybrid = {"name": "hybrid", "systems": ["bm25", "dense"], "method": "rrf"}
    write_config(Path("bench.yaml"), ["path:c"], bm25={"analyzers": "plain"}, fusion=[hybrid])
    # A JVM that an earlier test started is in another directory.
    _run(f"reproduce bench.yaml --encoder m=m --output {Path.cwd() / 'rep'} --device cpu --no-progress")
    _check("results", _json("rep/results.json"))
    for path in Path("rep").rglob("manifest.json"):
        manifest = json.loads(path.read_text("utf-8"))
        _check(f"reproduction_{manifest['format']}", _masked(manifest))
    files = [path.relative_to("rep") for path in Path("rep").rglob("*") if path.is_file()]
    found = [str(path) for path in files if not _SEGMENT.fullmatch(path.name)]
    _check("reproduction_files", sorted({_HEX.sub("<hash>", name) for name in found}))


@pytest.mark.slow
def test_training_data_and_students(world: Path) -> None:
    Path("de.tsv").write_text("".join(f"ein Satz {n} hier\ta sentence {n} here\n" for n in range(40)))
    _run("data parallel --tsv de=de.tsv --output pairs --no-progress")
    _check("pairs", _json("pairs/manifest.json"))
    _run("data aligned --mmarco de nl --output table --no-progress")
    _check("table", _json("table/manifest.json"))
    _run(
        "train stage1 --student new:tiny --vocabulary 450 --teacher packaged:all-MiniLM-L6-v2 "
        "--pairs t/pairs --batch-size 8 "
        "--steps 4 --max-length 24 --precision float32 --output s1 --teacher-store store --device cpu "
        "--no-progress"
    )
    _check("stage1", _json("s1/manifest.json"))
    _run(
        "train stage2 --student s1 --teacher packaged:all-MiniLM-L6-v2 --table t/table "
        "--batch-size 8 --mini-batch-size 8 "
        "--steps 4 --max-length 24 --precision float32 --output s2 --teacher-store store --device cpu "
        "--no-progress"
    )
    _check("stage2", _json("s2/manifest.json"))
    metrics = [json.loads(line) for line in Path("s2/metrics.jsonl").read_text("utf-8").splitlines()]
    _check("metrics", sorted({name for row in metrics for name in row}))
    files = [path for path in Path("s2").rglob("*") if path.is_file() and "tensorboard" not in str(path)]
    _check("training_files", sorted(str(path) for path in files))


@pytest.mark.slow
def test_an_experiment(world: Path) -> None:
    _run("experiment t/recipe.yaml --output exp --device cpu --no-progress")
    _check("experiment", _kinds(_json("exp/results.json")))
