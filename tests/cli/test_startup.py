"""What a command imports: little, so that it starts fast."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr, sentence_transformer

# Trainers, plots and generation are never needed; torch is not where an encoder ran as a graph before.
HEAVY = {"torch", "transformers", "sentence_transformers", "datasets", "sklearn", "matplotlib", "torchvision"}
PROGRAM = """
import sys
from mimo_plugin.cli import main
status = main(sys.argv[1:])
print(*sys.modules)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    queries = [{"_id": "q1", "text": "Suche", "lang": "de"}]
    write_folder(root / "c", documents(5), queries, {"q1": {"d1": 1}})
    sentence_transformer(root / "m", plain_xlmr(root / "plain"))
    # The first encoder of a machine is exported with torch.
    _modules(root, "encode path:c --encoder m --output first")
    return root


def _modules(root: Path, command: str) -> set[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(root / "caches"), "MIMO_BACKEND": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split(), "--no-progress"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.slow
def test_commands_import_no_more_than_they_need(world: Path) -> None:
    encoding = "--encoder m --device cpu"
    assert HEAVY.isdisjoint(_modules(world, f"encode path:c {encoding} --output vectors"))
    assert HEAVY.isdisjoint(_modules(world, f"index path:c {encoding} --output ix"))
    assert HEAVY.isdisjoint(_modules(world, "search ix --topics path:c --device cpu --output a.trec"))
    evaluated = _modules(world, "evaluate a.trec --qrels path:c --measures ndcg@5")
    assert (HEAVY | {"pandas", "faiss", "openvino"}).isdisjoint(evaluated)
