"""Time and memory of `mimo evaluate` and of ir_measures on the same files.

    pip install ir_measures
    python performance/evaluation_speed.py --queries 10000 --hits 1000

Writes a seeded run, judgments and topics in ten languages, then scores three measures with each tool in a
process of its own: from the start of Python to the printed means. What ranx compiles on its first use, numba
keeps for good; it is compiled on a tiny run first, into a cache of its own, and counted apart. Writes wall
time, CPU time and peak resident memory as JSON.
"""

import json
import os
import platform
import re
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from mimo_plugin.core.environment import git_commit

# Ours -> ir_measures'.
MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "map": "AP"}
LANGUAGES = ("ar", "bn", "en", "fi", "id", "ja", "ko", "ru", "sw", "te")
PACKAGES = ("ir_measures", "numba", "numpy", "pytrec-eval-terrier", "ranx")
TINY = 20


@click.command()
@click.option("--queries", default=10_000, show_default=True)
@click.option("--hits", default=1000, show_default=True, help="A query.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("performance/evaluation_speed.json"),
    show_default=True,
)
def main(queries: int, hits: int, seed: int, output: Path) -> None:
    """Score one large run with both tools, each in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(place / "numba")}
        tools: dict[str, dict[str, Any]] = {}
        for name, count in (("tiny", TINY), ("full", queries)):
            _write(place / name, count, min(hits, count * 50), seed)
            for tool, command in _commands(place / name).items():
                measured = _run(command, environment, place / name / f"{tool}.out")
                measured["means"] = _means(tool, place / name)
                tools.setdefault(tool, {})[name] = measured
                click.echo(
                    f"{name}: {tool:>13} {measured['wall_seconds']:7.1f} s, "
                    f"CPU {measured['cpu_seconds']:7.1f} s, peak {measured['peak_bytes'] / 2**20:6.0f} MiB"
                )
        size = (place / "full" / "run.trec").stat().st_size
    ours, theirs = (tools[tool]["full"] for tool in ("mimo evaluate", "ir_measures"))
    for measure, mean in ours["means"].items():
        if abs(mean - theirs["means"][measure]) > 5e-5:
            raise SystemExit(f"{measure}: mimo says {mean}, ir_measures {theirs['means'][measure]}")
    ratios = {name: ours[name] / theirs[name] for name in ("wall_seconds", "cpu_seconds", "peak_bytes")}
    record = {
        "command": " ".join(["python", *sys.argv]),
        "options": {"queries": queries, "hits": hits, "seed": seed, "measures": list(MEASURES)},
        "run_bytes": size,
        "first_use": {
            "what": f"a run of {TINY} queries, with numba's cache empty: what ranx compiles once",
            **{tool: measured["tiny"] for tool, measured in tools.items()},
        },
        "measured": {tool: measured["full"] for tool, measured in tools.items()},
        "mimo_over_ir_measures": ratios,
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load_average": os.getloadavg(),
            "versions": {name: version(name) for name in PACKAGES},
            "git_commit": git_commit(Path(__file__).parent),
        },
    }
    output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    click.echo("mimo / ir_measures: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))


def _write(folder: Path, queries: int, hits: int, seed: int) -> None:
    """A run as Pyserini writes it, with ids like MIRACL's, and some ten judgments a query, mostly of hits."""
    import numpy as np

    rng = np.random.default_rng(seed)
    (folder / "qrels").mkdir(parents=True)
    with (
        (folder / "run.trec").open("w", encoding="utf-8") as run,
        (folder / "qrels.txt").open("w", encoding="utf-8") as trec_qrels,
        (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as tsv_qrels,
        (folder / "queries.jsonl").open("w", encoding="utf-8") as topics,
    ):
        tsv_qrels.write("query-id\tcorpus-id\tscore\n")
        for number in range(queries):
            query = f"{number}#0"
            language = LANGUAGES[number % len(LANGUAGES)]
            topics.write(json.dumps({"_id": query, "text": f"question {number}", "lang": language}) + "\n")
            articles = rng.choice(5_000_000, hits + 3, replace=False).tolist()
            passages = rng.integers(0, 30, hits + 3).tolist()
            docids = [f"{article}#{passage}" for article, passage in zip(articles, passages, strict=True)]
            scores = np.sort(rng.gamma(4.0, 2.0, hits))[::-1].tolist()
            run.writelines(
                f"{query} Q0 {docid} {rank} {score:.6f} Anserini\n"
                for rank, (docid, score) in enumerate(zip(docids[:hits], scores, strict=True), start=1)
            )
            # Judged: seven hits, more of them near the top, and three documents that were not found.
            places = np.unique((hits * rng.random(7) ** 3).astype(int)).tolist()
            for position, docid in enumerate([docids[place] for place in places] + docids[hits:]):
                relevance = int(position % 3 == 0)
                trec_qrels.write(f"{query} 0 {docid} {relevance}\n")
                tsv_qrels.write(f"{query}\t{docid}\t{relevance}\n")
    (folder / "corpus.jsonl").write_text('{"_id": "none", "text": "none", "lang": "en"}\n', encoding="utf-8")


def _commands(folder: Path) -> dict[str, list[str]]:
    run = str(folder / "run.trec")
    ours = ["evaluate", run, "--qrels", f"path:{folder}", "--measures", ",".join(MEASURES)]
    theirs = [str(folder / "qrels.txt"), run, " ".join(MEASURES.values())]
    return {
        "mimo evaluate": [sys.executable, "-m", "mimo_plugin", *ours, "--json", str(folder / "mimo.json")],
        "ir_measures": [sys.executable, "-m", "ir_measures", *theirs],
    }


def _run(command: list[str], environment: dict[str, str], printed: Path) -> dict[str, Any]:
    actions = [(os.POSIX_SPAWN_OPEN, 1, str(printed), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)]
    began = time.perf_counter()
    process = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _means(tool: str, folder: Path) -> dict[str, float]:
    if tool == "mimo evaluate":
        (run,) = json.loads((folder / "mimo.json").read_text(encoding="utf-8"))["runs"].values()
        return {measure: run["mean"][measure] for measure in MEASURES}
    printed = dict(re.findall(r"(\S+)\s+(\S+)", (folder / f"{tool}.out").read_text(encoding="utf-8")))
    return {ours: float(printed[theirs]) for ours, theirs in MEASURES.items()}


if __name__ == "__main__":
    main()
