"""Peak memory of `mimo index` on collections of different size.

    python benchmarks/index_memory.py --documents 10000 50000

Documents are the packaged sample's passages, repeated under new ids. Prints peak resident memory of the whole
process beside the bytes of the flat index, which FAISS holds in memory, and writes both as JSON.
"""

import json
import os
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

import click

from mimo_plugin.cli.options import CommandWithLists, ListOption
from mimo_plugin.packaged import TEACHER


@click.command(cls=CommandWithLists)
@click.option("--documents", cls=ListOption, type=int, default=(10_000, 50_000), show_default=True)
@click.option("--encoder", default=TEACHER, show_default=True)
@click.option("--max-length", default=32, show_default=True, help="Short, to keep the run short.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/index_memory.json"))
def main(documents: tuple[int, ...], encoder: str, max_length: int, output: Path) -> None:
    """Index collections of the given sizes, each in a process of its own, and print peak memory."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for count in documents:
            folder, index = Path(directory, f"docs{count}"), Path(directory, f"index{count}")
            _write_collection(folder, count)
            command = ["index", f"path:{folder}", "--encoder", encoder, "--max-length", str(max_length)]
            peak = _peak_memory([*command, "--output", str(index)])
            size = (index / "index").stat().st_size
            rows.append({"documents": count, "peak_bytes": peak, "index_bytes": size})
            click.echo(
                f"{count:>9} documents: peak memory {peak / 2**20:7.0f} MiB, "
                f"of it flat index {rows[-1]['index_bytes'] / 2**20:5.0f} MiB"
            )
    options = {"encoder": encoder, "max_length": max_length}
    output.write_text(json.dumps({"options": options, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def _write_collection(folder: Path, count: int) -> None:
    from mimo_plugin.collections import load_pool

    folder.mkdir()
    texts = [(doc.text, doc.lang) for doc in load_pool(["mimo-sample"]).docs_iter()]
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as lines:
        for number, (text, lang) in enumerate(islice(cycle(texts), count)):
            lines.write(json.dumps({"_id": f"d{number}", "text": f"{number} {text}", "lang": lang}) + "\n")


def _peak_memory(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "mimo_plugin", *arguments]
    process = os.posix_spawn(sys.executable, command, dict(os.environ))
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"mimo {' '.join(arguments)} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
