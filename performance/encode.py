"""Documents per second of stock Pyserini, sentence-transformers and `mimo encode`, side by side.

    python performance/encode.py --collection path:performance/data/debian/dev --repeat 3
    python performance/encode.py --model xlm-r-base:random --documents 1000
    python performance/encode.py --model packaged:multilingual-e5-small --dtypes float32 auto \\
        --quality path:performance/data/debian/dev path:performance/data/lohelp/test

Same texts, same model, each system in a process of its own, all of them in turn and again: whatever else the
machine does hits all. What a command takes for eight documents, mostly to start, is taken off, and there is
no rate where the rest is not four times as long. Beside the rates stand how many times that of stock Pyserini
in the same round they are, the share of padding, peak memory, how far the vectors are from those of
sentence-transformers in float32, and the share of the float32 rate at which torch multiplies matrices of the
model's own width on the same cores. Only work on tokens counts there, not on padding.

With --quality, documents and queries are encoded in each of --dtypes, and the differences of nDCG@20 to the
first of them stand beside it; `--documents 1500` takes so many judged documents with their queries.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click

from mimo_plugin.cli.generate import CommandWithLists, ListOption
from mimo_plugin.encoder.packaged import TEACHER, resolve

XLMR = "xlm-r-base:random"
STOCK, FAISS, LIBRARY = "pyserini to JSONL", "pyserini to FAISS", "sentence-transformers"
BATCH_SIZES = (8, 16, 32, 64, 128)
# name -> options of `mimo encode`
OURS = {
    "mimo auto": ("auto", "auto"),
    "mimo torch": ("torch", "float32"),
    "mimo openvino": ("openvino", "float32"),
    "mimo onnx": ("onnx", "float32"),
    "mimo torch bfloat16": ("torch", "bfloat16"),
    "mimo openvino bfloat16": ("openvino", "bfloat16"),
    "mimo onnx int8": ("onnx", "int8"),
}
FEW = 8
# Work is this many times as long as the start, or nothing is said of its rate.
LONG = 4
# Largest difference of nDCG@20 to float32.
BOUND = 0.002


@click.command(cls=CommandWithLists)
@click.option("--model", default=TEACHER, show_default=True, help=f"A checkpoint, or {XLMR}.")
@click.option("--collection", default="mimo-sample", show_default=True)
@click.option("--documents", type=int, help="The first so many.  [default: 3000; with --quality all]")
@click.option("--max-length", default=256, show_default=True, help="In tokens.")
@click.option("--repeat", default=3, show_default=True)
@click.option("--systems", cls=ListOption, help="Some of them.  [default: all]")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--quality",
    cls=ListOption,
    metavar="COLLECTION...",
    help="Collections whose nDCG@20 is computed with each of --dtypes instead.",
)
@click.option("--dtypes", cls=ListOption, default=("float32", "bfloat16", "int8"), show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="[default: performance/encode.json; with --quality performance/encode_quality.json]",
)
def main(output: Path | None, quality: tuple[str, ...], dtypes: tuple[str, ...], **options: Any) -> None:
    """Measure all systems, or what number formats cost."""
    output = output or Path(__file__).with_name("encode_quality.json" if quality else "encode.json")
    if not quality:
        options["documents"] = options["documents"] or 3000
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        model = _write_xlmr(place / "model") if options["model"] == XLMR else resolve(options["model"])
        if quality:
            # By its name, which decides the prompts.
            name = model if options["model"] == XLMR else options["model"]
            found = _quality(place, name, quality, dtypes, options["documents"])
        else:
            found = _speed(place, model, **options)
    from mimo_plugin.core.environment import environment

    record = {
        "command": " ".join(["python", *sys.argv]),
        "options": {**options, "quality": quality},
        **found,
        "environment": environment("cuda" if options["device"].startswith("cuda") else "cpu", 1),
    }
    output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if not quality:
        _plot(record, output.with_suffix(".png"))


def _speed(place: Path, path: str, **options: Any) -> dict[str, Any]:
    facts = _prepare(place, path, **options)
    systems = options["systems"] or (STOCK, FAISS, LIBRARY, *OURS)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    matrix: list[float] = []
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    for number in range(options["repeat"]):
        for name in systems:
            matrix.append(_worker("matrix", place, path, options["device"], facts["hidden"])["flops"])
            if name == LIBRARY:
                tries = [_worker("library", place, path, options["device"], size) for size in batch_sizes]
                tries.sort(key=lambda one: one["seconds"])
                best = tries[0]
                # The two best of the first round, from then on.
                batch_sizes = tuple(one["batch_size"] for one in tries[:2])
            else:
                best = _command(place, path, name, options, facts)
            rounds[name].append(best)
            click.echo(f"round {number + 1}: {name:<24} {best['seconds']:7.1f} s")
    rate = median(matrix)
    rows = [_row(place, name, found, facts, rate) for name, found in rounds.items()]
    stock = next((row["all"] for row in rows if row["system"] in (STOCK, FAISS)), [])
    click.echo(f"{'':<24} documents/s tokens/s matrix share  x stock peak MiB padding difference cosine")
    for row in rows:
        times = [own / other for own, other in zip(row["all"], stock, strict=False)]
        row["times_stock"] = {"median": median(times), "all": times} if times else None
        rates = f"{'too few documents to tell':>42}"
        if row["documents_per_second"] is not None:
            rates = (
                f"{row['documents_per_second']:11.1f} {row['tokens_per_second']:8.0f} "
                f"{row['matrix_share']:12.2f} {median(times) if times else float('nan'):8.2f}"
            )
        click.echo(
            f"{row['system']:<24} {rates} {row['peak_bytes'] / 2**20:8.0f} {row['padding']:7.3f} "
            f"{row['difference']:10.1e} {row['cosine']:6.4f}"
        )
    return {"facts": facts, "matrix_flops_per_second": {"median": rate, "all": matrix}, "rows": rows}


def _row(
    place: Path, name: str, found: list[dict[str, Any]], facts: dict[str, Any], rate: float
) -> dict[str, Any]:
    start = median(one["start"] for one in found)
    work = [one["seconds"] - start for one in found]
    told = min(work) >= LONG * start
    rates = [(facts["documents"] - one["few"]) / seconds for one, seconds in zip(found, work, strict=True)]
    documents = median(rates) if told else None
    return {
        "system": name,
        "documents_per_second": documents,
        "all": rates if told else [],
        "tokens_per_second": documents and documents * facts["tokens"] / facts["documents"],
        "matrix_share": documents and documents * facts["flops"] / facts["documents"] / rate,
        "seconds": [one["seconds"] for one in found],
        "start_seconds": start,
        "peak_bytes": median(one["peak_bytes"] for one in found),
        "padding": facts["padding"].get(str(found[-1].get("batch_size", name)), facts["padding"]["mimo"]),
        "batch_size": found[-1].get("batch_size"),
        **_difference(place, name),
    }


def _prepare(place: Path, path: str, **options: Any) -> dict[str, Any]:
    """Writes the documents, all of them and the first few; returns their tokens and the model's work."""
    from mimo_plugin.collections.pool import load

    docs = list(islice(load(options["collection"]).docs_iter(), options["documents"]))
    for name, count in (("all", len(docs)), ("few", FEW)):
        (place / name).mkdir()
        with (place / name / "corpus.jsonl").open("w", encoding="utf-8") as lines:
            for doc in docs[:count]:
                lines.write(json.dumps({"_id": doc.doc_id, "text": doc.text, "lang": doc.lang}) + "\n")
    (place / "max-length").write_text(str(options["max_length"]))
    return _worker("facts", place, path, options["device"], 0)


def _command(
    place: Path, path: str, name: str, options: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    seconds, peak = {}, 0
    # Twice: a graph is exported only once.
    for part in ("few", "few", "all"):
        output = place / f"{name.replace(' ', '-')}-{part}"
        shutil.rmtree(output, ignore_errors=True)
        if name in OURS:
            backend, dtype = OURS[name]
            command = ["mimo_plugin", "encode", f"path:{place / part}", "--encoder", path]
            command += ["--backend", backend, "--dtype", dtype, "--device", options["device"]]
            command += ["--max-length", str(options["max_length"]), "--output", str(output)]
        else:
            command = [*_stock_module(), "input", "--corpus", str(place / part)]
            command += ["--fields", "text", "output", "--embeddings", str(output)]
            command += ["--to-faiss"] if name == FAISS else []
            command += ["encoder", "--encoder", path, "--encoder-class", "auto", "--fields", "text"]
            command += ["--pooling", "mean", "--l2-norm", "--dimension", str(facts["dimension"])]
            command += ["--max-length", str(options["max_length"]), "--device", options["device"]]
        began = time.perf_counter()
        peak = _peak_memory(["-m", *command])
        seconds[part] = time.perf_counter() - began
    return {"seconds": seconds["all"], "start": seconds["few"], "few": FEW, "peak_bytes": peak}


@cache
def _stock_module() -> tuple[str, ...]:
    """Stock Pyserini as it is; where this machine's Java is not to its liking, with a Java that is."""
    command = [sys.executable, "-m", "pyserini.encode", "--help"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return ("mimo_plugin", "pyserini", "encode") if done.returncode else ("pyserini.encode",)


def _peak_memory(arguments: list[str]) -> int:
    with tempfile.TemporaryFile() as log:
        actions = [(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)]
        process = os.posix_spawn(
            sys.executable, [sys.executable, *arguments], dict(os.environ), file_actions=actions
        )
        _, status, usage = os.wait4(process, 0)
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(arguments)} failed:\n{log.read().decode()[-2000:]}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _worker(kind: str, *arguments: Any) -> dict[str, Any]:
    """Runs one of performance/encode_workers.py in a process of its own."""
    script = Path(__file__).with_name("encode_workers.py")
    done = subprocess.run(
        [sys.executable, script, kind, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _difference(place: Path, name: str) -> dict[str, float | None]:
    import numpy as np

    expected = np.load(place / "expected.npy")
    if name == LIBRARY:
        return {"difference": 0.0, "cosine": 1.0}
    output = place / f"{name.replace(' ', '-')}-all"
    if name == FAISS:
        import faiss

        found = faiss.read_index(str(output / "index")).reconstruct_n(0, len(expected))
    elif name == STOCK:
        found = np.array(list(_json_vectors(output)), dtype=np.float32)
    else:
        from mimo_plugin.indexing.vectors import open_vectors

        found = np.concatenate([batch.vectors for batch in open_vectors([output]).batches()])
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (found * expected).sum(axis=1) / norms
    return {"difference": float(np.abs(found - expected).max()), "cosine": float(cosines.min())}


def _json_vectors(directory: Path) -> Iterator[list[float]]:
    for file in sorted(directory.iterdir()):
        with file.open(encoding="utf-8") as lines:
            yield from (json.loads(line)["vector"] for line in lines)


def _write_xlmr(directory: Path) -> str:
    """XLM-R-base with random weights: 12 layers of 768. The tokenizer is all-MiniLM-L6-v2's."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

    tokenizer = AutoTokenizer.from_pretrained(resolve(TEACHER))
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=514,
        type_vocab_size=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    plain = directory.with_name("plain")
    XLMRobertaModel(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules = [Transformer(str(plain), max_seq_length=512), Pooling(768, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(directory))
    return str(directory)


def _quality(
    place: Path, path: str, collections: tuple[str, ...], dtypes: tuple[str, ...], documents: int | None
) -> dict[str, Any]:
    """nDCG@20 on each collection, documents and queries in the same number format."""
    found: dict[str, Any] = {}
    for number, name in enumerate(collections):
        own = place / str(number)
        own.mkdir()
        collection = name if documents is None else _slice(own / "slice", name, documents)
        formats, runs = {}, []
        for dtype in dtypes:
            index, run = own / f"index-{dtype}", str(own / f"{dtype}.trec")
            backend = {"float32": "openvino", "bfloat16": "openvino", "int8": "onnx"}.get(dtype, "auto")
            options = ["--backend", backend, "--dtype", dtype]
            _mimo("index", collection, "--encoder", path, "--output", str(index), *options)
            # In the format of the index.
            _mimo("search", str(index), "--topics", collection, "--output", run)
            plan = json.loads((index / "manifest.json").read_text(encoding="utf-8"))["plan"]
            formats[dtype] = {name: plan[name] for name in ("dtype", "dtype_reason", "backend", "documents")}
            runs.append(run)
        scores = own / "scores.json"
        _mimo("evaluate", *runs, "--qrels", collection, "--measures", "ndcg@20", "--json", str(scores))
        read = json.loads(scores.read_text(encoding="utf-8"))["runs"]
        means = {dtype: read[dtype]["mean"]["ndcg@20"] for dtype in dtypes}
        for dtype, mean in means.items():
            difference = mean - means[dtypes[0]]
            within = "within" if abs(difference) <= BOUND else "NOT within"
            click.echo(
                f"{name} {dtype:<8} ({formats[dtype]['dtype']}) nDCG@20 {mean:.4f} {difference:+.4f}, "
                f"{within} {BOUND}"
            )
        found[name] = {"ndcg@20": means, "formats": formats}
    return {"collections": found}


def _slice(directory: Path, collection: str, documents: int) -> str:
    """A folder of the first so many judged documents, and of the queries that are judged by them alone."""
    from mimo_plugin.collections.pool import load

    pool = load(collection)
    judged: dict[str, dict[str, int]] = {}
    for qrel in pool.qrels_iter():
        judged.setdefault(qrel.query_id, {})[qrel.doc_id] = qrel.relevance
    kept: set[str] = set()
    for docids in judged.values():
        if len(kept.union(docids)) <= documents:
            kept.update(docids)
    queries = [query for query in pool.queries_iter() if kept.issuperset(judged.get(query.query_id, {""}))]
    (directory / "qrels").mkdir(parents=True)
    with (directory / "corpus.jsonl").open("w", encoding="utf-8") as lines:
        for doc in pool.docs_iter():
            if doc.doc_id in kept:
                lines.write(json.dumps({"_id": doc.doc_id, "text": doc.text, "lang": doc.lang}) + "\n")
    with (directory / "queries.jsonl").open("w", encoding="utf-8") as lines:
        for query in queries:
            lines.write(json.dumps({"_id": query.query_id, "text": query.text, "lang": query.lang}) + "\n")
    with (directory / "qrels" / "test.tsv").open("w", encoding="utf-8") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for query in queries:
            for docid, relevance in judged[query.query_id].items():
                lines.write(f"{query.query_id}\t{docid}\t{relevance}\n")
    return f"path:{directory}"


def _mimo(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "mimo_plugin", *arguments], check=True, stdout=subprocess.DEVNULL)


def _plot(record: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in record["rows"][::-1] if row["documents_per_second"] is not None]
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(rows) + 1.2), layout="constrained")
    rates = [row["documents_per_second"] for row in rows]
    axes.barh([row["system"] for row in rows], rates, color="#4477aa")
    for place, row in enumerate(rows):
        axes.plot(row["all"], [place] * len(row["all"]), "k|", markersize=8)
        axes.annotate(f" {row['matrix_share']:.2f}", (max(row["all"]), place), va="center", fontsize=8)
    axes.margins(x=0.08)
    axes.set_xlabel("documents per second (|: single rounds; number: share of the float32 matrix rate)")
    axes.set_title(f"{record['options']['model']}, {record['facts']['documents']} documents", fontsize=10)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
