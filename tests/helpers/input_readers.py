"""The readers of what users bring: runs, collections, parallel texts, recipes, configs, vectors."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from helpers.beir import documents, write_folder
from helpers.reading import Reader


def _run(base: Path) -> Reader:
    from mimo_plugin.evaluation.fusion import fuse_files
    from mimo_plugin.evaluation.runs import read_run

    base.mkdir(parents=True)
    lines = [
        f"q{query} Q0 d{rank} {rank} {10 - rank / 3:.4f} tag" for query in range(4) for rank in range(1, 6)
    ]
    text = "\n".join(lines).encode() + b"\n"
    (base / "plain.trec").write_bytes(text)
    (base / "packed.trec").write_bytes(gzip.compress(text, mtime=0))

    def read(directory: Path, output: Path) -> None:
        run = read_run(directory / "packed.trec", "packed")
        assert all(np.isfinite(ranking.scores).all() for ranking in run.queries.values())
        fuse_files([str(directory / "plain.trec"), str(directory / "packed.trec")], output)

    return Reader("run", base, ("plain.trec", "packed.trec"), read)


_QUERIES = [{"_id": f"q{n}", "text": f"Suche {n}", "lang": ("de", "fi")[n % 2]} for n in range(4)]
_QRELS = {f"q{n}": {f"d{n}": 1, f"d{n + 1}": 2} for n in range(4)}


def _survey(directory: Path, _: Path) -> None:
    from mimo_plugin.collections.pool import load
    from mimo_plugin.collections.survey import survey

    pool = load(f"path:{directory}")
    survey(pool, progress=False)
    for doc in pool.docs_iter():
        _check_written(doc.doc_id)
        _check_written(doc.text)


def _check_written(text: str) -> None:
    """What was taken can be written later, after hours of encoding."""
    text.encode()


def _read_topics(directory: Path, _: Path) -> None:
    from mimo_plugin.evaluation.topics import load_topics, open_pool
    from mimo_plugin.indexing.search import read_topics

    pool = open_pool([f"path:{directory}"])
    load_topics(pool)
    for query_id, text in read_topics(pool).queries:
        _check_written(query_id)
        _check_written(text)


def _collection(base: Path) -> Reader:
    write_folder(base, documents(6), _QUERIES, _QRELS)
    return Reader("BEIR corpus", base, ("corpus.jsonl",), _survey)


def _topics(base: Path) -> Reader:
    write_folder(base, documents(6), _QUERIES, _QRELS)
    return Reader("BEIR queries and qrels", base, ("queries.jsonl", "qrels/test.tsv"), _read_topics)


def _paper(base: Path) -> Reader:
    base.mkdir(parents=True)
    docs = {f"d{n}": {"text": f"Haus {n}", "lang": "de"} for n in range(4)}
    (base / "corpus.jsonl").write_text("".join(json.dumps({name: doc}) + "\n" for name, doc in docs.items()))
    (base / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in _QUERIES))
    (base / "qrels.jsonl").write_text(
        "".join(json.dumps({name: rows}) + "\n" for name, rows in _QRELS.items())
    )

    def read(directory: Path, output: Path) -> None:
        _survey(directory, output)
        _read_topics(directory, output)

    return Reader(
        "folder of the paper's layout", base, ("corpus.jsonl", "queries.jsonl", "qrels.jsonl"), read
    )


def _tsv(base: Path) -> Reader:
    from mimo_plugin.data.options import ParallelOptions, SourceOptions
    from mimo_plugin.data.parallel import make_pairs, parse_sources

    base.mkdir(parents=True)
    rows = [f"an English sentence {n}\tein deutscher Satz {n}" for n in range(6)]
    (base / "de.tsv").write_text("\n".join(rows) + "\n")
    (base / "fi.tsv").write_bytes((base / "de.tsv").read_bytes())

    def read(directory: Path, output: Path) -> None:
        specs = [f"{lang}={directory / lang}.tsv" for lang in ("de", "fi")]
        sources, _ = parse_sources(SourceOptions(tsv=tuple(specs)))
        make_pairs(sources, output, ParallelOptions(progress=False))

    return Reader("TSV of parallel texts", base, ("de.tsv",), read)


def _recipe(base: Path) -> Reader:
    from mimo_plugin.training.recipe import Recipe

    base.mkdir(parents=True)
    recipe = {
        "student": {"checkpoint": "new:mini", "vocabulary": 3000},
        "teacher": {"checkpoint": "packaged:all-MiniLM-L6-v2", "query_prompt": "query: "},
        "pairs": "pairs",
        "table": "table",
        "seed": 3,
        "stage1": {"batch_size": 8, "learning_rate": 1e-3, "steps": 6, "precision": "float32"},
        "stage2": {"batch_size": 8, "contrastive_weight": 0.2, "objective": "mimo", "mini_batch_size": 4},
    }
    (base / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def read(directory: Path, _: Path) -> None:
        Recipe.read(directory / "recipe.yaml", {"seed": 4, "stage1": {"steps": 2}})

    return Reader("training recipe", base, ("recipe.yaml",), read)


def _experiment(base: Path) -> Reader:
    from mimo_plugin.benchmark.grid import Experiment

    base.mkdir(parents=True)
    recipe = {
        "name": "small",
        "data": {"pairs": "pairs", "table": "table"},
        "collections": {"test": "path:test", "both": ["path:a", "path:b"]},
        "student": {"checkpoint": "new:mini"},
        "stage2": {"batch_size": 8, "steps": 4},
        "systems": {
            "mimo": {"objective": "mimo", "lambda": 0.2},
            "xlco": {"objective": "xlco", "stage2": {"epochs": 1}},
        },
        "seeds": [1, 2],
        "baseline": "xlco",
        "measures": ["ndcg@20"],
    }
    (base / "experiment.yaml").write_text(yaml.safe_dump(recipe))
    return Reader(
        "experiment recipe",
        base,
        ("experiment.yaml",),
        lambda directory, _: Experiment.read(directory / "experiment.yaml"),
    )


def _config(base: Path) -> Reader:
    from mimo_plugin.benchmark.loading import load_config

    base.mkdir(parents=True)
    config = {
        "title": "A small benchmark",
        "setting": "mlir",
        "collections": {"de": "path:{data}/de", "fi": "miracl/fi/dev"},
        "measures": ["ndcg@5", "recall@10"],
        "depth": 20,
        "alpha": 0.05,
        "fairness": {"cutoff": 5, "target": "relevant"},
        "geometry": {"texts": 10, "role": "documents", "seed": 0},
        "bm25": {"analyzers": "plain"},
        "fusion": [{"name": "hybrid", "systems": ["bm25", "encoder"], "method": "rrf", "k": 60}],
        "reference": [{"system": "x", "measure": "ndcg@5", "macro": 0.5, "source": "somewhere"}],
        "obtain": "by hand",
    }
    (base / "config.yaml").write_text(yaml.safe_dump(config))
    return Reader(
        "eval config",
        base,
        ("config.yaml",),
        lambda directory, _: load_config(str(directory / "config.yaml")),
    )


def npy_files(base: Path, rows: int = 10) -> Path:
    base.mkdir(parents=True)
    vectors = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    np.save(base / "vectors.npy", vectors)
    (base / "vectors.docid").write_text("".join(f"d{n}\n" for n in range(rows)))
    (base / "vectors.lang").write_text("".join(("de\n", "fi\n")[n % 2] for n in range(rows)))
    return base / "vectors.npy"


def import_file(file: Path, output: Path) -> None:
    """Brings vectors into a directory of ours; what is there then must be numbers."""
    from mimo_plugin.indexing.importing import import_vectors
    from mimo_plugin.indexing.settings import EncodeOptions
    from mimo_plugin.indexing.vectors import open_vectors

    import_vectors([file], output, EncodeOptions(shard_size=4, progress=False))
    for batch in open_vectors([output]).batches():
        assert np.isfinite(batch.vectors).all(), "vectors that are no numbers were taken"


def _npy(base: Path) -> Reader:
    npy_files(base)
    return _imported("vectors as .npy", base, "vectors.npy", "vectors.docid", "vectors.lang")


def _imported(name: str, base: Path, *files: str) -> Reader:
    return Reader(name, base, files, lambda directory, output: import_file(directory / files[0], output))


def _jsonl(base: Path) -> Reader:
    base.mkdir(parents=True)
    rows = [
        {"id": f"d{n}", "contents": f"Haus {n}", "vector": [n / 7, -1.5, 1e-3], "lang": "de"}
        for n in range(6)
    ]
    (base / "vectors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return _imported("vectors as JSON Lines", base, "vectors.jsonl")


def _parquet(base: Path) -> Reader:
    import pyarrow as pa
    from pyarrow import parquet

    base.mkdir(parents=True)
    columns = {
        "docid": [f"d{n}" for n in range(6)],
        "lang": ["de"] * 6,
        "vector": [[n / 7, -1.5] for n in range(6)],
    }
    parquet.write_table(pa.table(columns), base / "vectors.parquet")
    return _imported("vectors as Parquet", base, "vectors.parquet")


def _table(base: Path) -> Reader:
    from mimo_plugin.data.debian.archive import read_tables

    base.mkdir(parents=True)
    rows = [
        {
            "id": f"{n:012x}",
            "package": f"p{n}",
            "text": {lang: {"short": f"s {n}", "long": f"l {n}"} for lang in ("en", "pt_BR")},
        }
        for n in range(4)
    ]
    (base / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Reader(
        "table of descriptions",
        base,
        ("table.jsonl",),
        lambda directory, _: read_tables([directory / "table.jsonl"]),
    )


# Name -> what writes a reader's valid files into a new directory.
INPUTS: dict[str, Callable[[Path], Reader]] = {
    "run": _run,
    "BEIR corpus": _collection,
    "BEIR queries and qrels": _topics,
    "folder of the paper's layout": _paper,
    "TSV of parallel texts": _tsv,
    "training recipe": _recipe,
    "experiment recipe": _experiment,
    "eval config": _config,
    "vectors as .npy": _npy,
    "vectors as JSON Lines": _jsonl,
    "vectors as Parquet": _parquet,
    "table of descriptions": _table,
}
