"""Faults on purpose: kills, damaged bytes, full disks, second writers, signals, fuzzed files.

    python performance/reliability.py --output performance/RELIABILITY.md

Commands work on a tiny world (random weights, some hundred documents), so that a kill costs seconds. They are
forked from this process, which has the libraries loaded: the moments of kills fall on work, not on imports.
Writes `reliability.json` beside the page. Parts can be run alone with `--only`; others' figures are kept.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
os.environ.update(
    OMP_NUM_THREADS="1", MIMO_BACKEND="torch", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
)
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(sys.prefix) / "numba-cache"))
os.environ.setdefault("MPLCONFIGDIR", str(Path(sys.prefix) / "matplotlib-cache"))

import platform
import shlex
import shutil
import signal
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import click

from mimo_plugin.cli.generate import CommandWithLists, ListOption

Say = Callable[[str], None]
PARTS = ("kills", "damage", "disk", "meddling", "fuzz")


@click.command(cls=CommandWithLists)
@click.option("--kills", default=20, show_default=True, help="Of each command.")
@click.option(
    "--positions", default=200, show_default=True, help="Bytes changed, of files that are read quickly."
)
@click.option("--tries", default=5, show_default=True, help="Of each signal, and of removed directories.")
@click.option("--seconds", default=60.0, show_default=True, help="Of fuzzing a reader.")
@click.option("--documents", default=600, show_default=True)
@click.option("--steps", default=12, show_default=True, help="Of each training stage.")
@click.option("--texts", default=40, show_default=True, help="Of the benchmark, in three languages each.")
@click.option("--only", cls=ListOption, type=click.Choice(PARTS), default=PARTS, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("performance/RELIABILITY.md"), show_default=True
)
def main(output: Path, only: tuple[str, ...], documents: int, steps: int, texts: int, **numbers: Any) -> None:
    """Make things go wrong on purpose, and write down what comes of it."""
    from faults.page import render
    from faults.processes import Process, preload

    file = output.with_suffix(".json").with_name(output.stem.lower() + ".json")
    figures = json.loads(file.read_text()) if file.is_file() else {}
    figures["about"] = _about(documents, steps, texts)
    preload()
    base = Path(tempfile.mkdtemp(prefix="reliability-"))
    try:
        world = _world(base, documents, steps, texts, Process)
        for part in (part for part in PARTS if part in only):
            click.echo(f"== {part}")
            figures[part] = _CHECKS[part](world, base / part, numbers, click.echo)
            file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
            output.write_text(render(figures))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    faults = sum(
        len(row["faults"]) + row.get("silent", 0) for part in PARTS for row in _rows(figures.get(part))
    )
    click.echo(f"{output}: {faults} faults")


def _rows(found: Any) -> list[dict[str, Any]]:
    return found if isinstance(found, list) else []


def _about(documents: int, steps: int, texts: int) -> dict[str, Any]:
    from mimo_plugin.core.environment import git_commit

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "faiss-cpu", "pyarrow", "pyserini"))
    return {
        "documents": documents,
        "steps": steps,
        "texts": texts,
        "run": f"python performance/reliability.py {shlex.join(sys.argv[1:])}",
        "environment": f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores; "
        f"{libraries}; commit {git_commit(Path(__file__).resolve().parent) or 'unknown'}.",
    }


def _world(base: Path, documents: int, steps: int, texts: int, process: Any) -> Any:
    """Made in a process of its own: training a tokenizer starts threads, which no fork can have."""
    from helpers.fault_world import FaultWorld

    def make() -> int:
        FaultWorld.make(base / "world", documents=documents, steps=steps, texts=texts).prepare()
        return 0

    ended = process(make, base).finish()
    if ended.status:
        raise SystemExit("\n".join(ended.errors))
    return FaultWorld(base / "world", documents, steps, texts)


def _kills(world: Any, base: Path, numbers: dict[str, Any], say: Say) -> list[dict[str, Any]]:
    from faults.kills import kill_test

    commands = world.commands()
    return [
        kill_test(commands[name], base / name, kills=numbers["kills"], chain=4, seed=numbers["seed"], say=say)
        for name in ("index", "index --vectors", "encode", "data", "train", "reproduce")
    ]


def _damage(world: Any, base: Path, numbers: dict[str, Any], say: Say) -> list[dict[str, Any]]:
    from faults.damage import all_kinds, damage_test

    return [
        damage_test(kind, base / "try", positions=numbers["positions"], seed=numbers["seed"], say=say)
        for kind in all_kinds(world, base / "whole")
    ]


def _disk(world: Any, base: Path, numbers: dict[str, Any], say: Say) -> list[dict[str, Any]] | str:
    from faults.disk import disk_test

    try:
        return [disk_test(command, base / name, say=say) for name, command in world.commands().items()]
    except PermissionError as error:
        return f"a tmpfs cannot be mounted here ({error})"


def _meddling(world: Any, base: Path, numbers: dict[str, Any], say: Say) -> list[dict[str, Any]]:
    from faults.meddling import removal_test, second_writer_test, signal_test

    commands = {name: command for name, command in world.commands().items() if command.notes}
    found = []
    for name, command in commands.items():
        often: Any = {"tries": numbers["tries"], "seed": numbers["seed"], "say": say}
        found.append(second_writer_test(command, base / "second" / name, say=say))
        found.append(removal_test(command, base / "removed" / name, **often))
        found += [
            signal_test(command, base / number.name / name, number, **often)
            for number in (signal.SIGINT, signal.SIGTERM)
        ]
    return found


def _fuzz(world: Any, base: Path, numbers: dict[str, Any], say: Say) -> list[dict[str, Any]]:
    from faults.fuzzing import fuzz_test
    from helpers.readers import READERS

    return [
        fuzz_test(
            make(base / f"reader-{number}"),
            base / "log",
            seconds=numbers["seconds"],
            seed=numbers["seed"],
            say=say,
        )
        for number, make in enumerate(READERS.values())
    ]


_CHECKS = {"kills": _kills, "damage": _damage, "disk": _disk, "meddling": _meddling, "fuzz": _fuzz}

if __name__ == "__main__":
    main()
