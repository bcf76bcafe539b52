"""Peak memory of `mimo encode` and of `mimo index` on collections of different size.

    python performance/index_memory.py --documents 50000 1000000 --factory flat ivfpq

Documents are the packaged sample's passages, repeated under new ids. The encoder has all-MiniLM-L6-v2's
tokenizer and dimension and one layer with random weights: a million documents are encoded in minutes, and
what the weights are changes no memory. Prints peak resident memory of each process beside the bytes of the
index, which FAISS holds in memory while it is built, and writes both as JSON.
"""

import json
import os
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

import click

from mimo_plugin.cli.generate import CommandWithLists, ListOption
from mimo_plugin.encoder.packaged import TEACHER, resolve


@click.command(cls=CommandWithLists)
@click.option("--documents", cls=ListOption, type=int, default=(50_000, 1_000_000), show_default=True)
@click.option("--factory", "factories", cls=ListOption, default=("flat", "ivfpq"), show_default=True)
@click.option("--max-length", default=16, show_default=True, help="In tokens; short, to keep the run short.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("performance/index_memory.json"))
def main(documents: tuple[int, ...], factories: tuple[str, ...], max_length: int, output: Path) -> None:
    """Encode and index collections of the given sizes, each in a process of its own; print peak memory."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        encoder = _write_encoder(Path(directory, "encoder"))
        for count in documents:
            folder, vectors = Path(directory, f"docs{count}"), Path(directory, f"vectors{count}")
            _write_collection(folder, count)
            options = ["--encoder", str(encoder), "--max-length", str(max_length)]
            peak = _peak_memory(["encode", f"path:{folder}", *options, "--output", str(vectors)])
            rows.append({"documents": count, "step": "encode", "peak_bytes": peak, "index_bytes": 0})
            _show(rows[-1])
            for factory in factories:
                index = Path(directory, f"{factory}{count}")
                arguments = ["--vectors", str(vectors), "--factory", factory, "--output", str(index)]
                peak = _peak_memory(["index", *arguments])
                size = (index / "index").stat().st_size
                step = f"index {factory}"
                rows.append({"documents": count, "step": step, "peak_bytes": peak, "index_bytes": size})
                _show(rows[-1])
    settings = {"max_length": max_length}
    output.write_text(json.dumps({"options": settings, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def _show(row: dict[str, object]) -> None:
    peak, index = (int(str(row[name])) / 2**20 for name in ("peak_bytes", "index_bytes"))
    click.echo(
        f"{row['documents']:>9} documents, {row['step']:<12} "
        f"peak memory {peak:7.0f} MiB, of it index {index:6.0f} MiB"
    )


def _write_encoder(directory: Path) -> Path:
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    checkpoint = resolve(TEACHER)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(checkpoint, num_hidden_layers=1)
    AutoModel.from_config(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(directory)
    return directory


def _write_collection(folder: Path, count: int) -> None:
    from mimo_plugin.collections.pool import load

    folder.mkdir()
    texts = [(doc.text, doc.lang) for doc in load("mimo-sample").docs_iter()]
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
