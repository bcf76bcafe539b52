"""Every reader of the package with valid files to damage, for `test_fuzz.py` and `benchmarks/reliability`."""

import gzip
import json
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import yaml
from beir import documents, write_folder
from mutations import damaged

from mimo_plugin.errors import MimoError

_SECONDS = 3.0


class Hang(BaseException):
    """A reader took longer than any reader of a small file may."""


@dataclass(frozen=True)
class Reader:
    """A part of the package that reads files of a user.

    Attributes:
        directory: the valid files lie here.
        files: names of those that are damaged, one at a time.
        read: called with the directory, and a path below which it may write.
    """

    name: str
    directory: Path
    files: tuple[str, ...]
    read: Callable[[Path, Path], object]

    def attempt(self, file: str, content: bytes) -> MimoError | None:
        """Reads with one file replaced, and puts it back.

        Returns:
            The error that was raised on purpose, None where all is well. Whatever else happens is raised.
        """
        path, output = self.directory / file, self.directory / "output"
        whole = path.read_bytes()
        present = set(self.directory.rglob("*"))
        try:
            path.write_bytes(content)
            with _no_longer_than(_SECONDS):
                self.read(self.directory, output)
        except MimoError as error:
            self._check(error, output)
            return error
        finally:
            path.write_bytes(whole)
            for left in sorted(set(self.directory.rglob("*")) - present):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink(missing_ok=True)
        return None

    def damage(self) -> "Any":
        """A strategy of (file, content) pairs."""
        from hypothesis import strategies as st

        contents = {file: (self.directory / file).read_bytes() for file in self.files}
        return st.sampled_from(self.files).flatmap(
            lambda file: st.tuples(st.just(file), damaged(file, contents[file]))
        )

    def _check(self, error: MimoError, output: Path) -> None:
        lines = str(error).splitlines()
        assert lines, "an error without a message"
        assert len(lines) <= 200, f"{len(lines)} lines of errors"
        left = [path for path in output.rglob("*") if path.name == "manifest.json" or path.suffix == ".tmp"]
        assert not left, f"left behind: {left}"
        assert not output.is_file(), "a part of a file was left"


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _run(base: Path) -> Reader:
    from mimo_plugin.evaluation.fusion_files import fuse_files
    from mimo_plugin.evaluation.run_reader import read_run

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
        fuse_files([str(directory / "plain.trec"), str(directory / "packed.trec")], output, progress=False)

    return Reader("run", base, ("plain.trec", "packed.trec"), read)


_QUERIES = [{"_id": f"q{n}", "text": f"Suche {n}", "lang": ("de", "fi")[n % 2]} for n in range(4)]
_QRELS = {f"q{n}": {f"d{n}": 1, f"d{n + 1}": 2} for n in range(4)}


def _survey(directory: Path, _: Path) -> None:
    from mimo_plugin.collections import load_pool
    from mimo_plugin.collections.survey import survey

    pool = load_pool([f"path:{directory}"])
    survey(pool, progress=False)
    for doc in pool.docs_iter():
        _check_written(doc.doc_id)
        _check_written(doc.text)


def _check_written(text: str) -> None:
    """What was taken can be written later, after hours of encoding."""
    text.encode()


def _read_topics(directory: Path, _: Path) -> None:
    from mimo_plugin.evaluation.topics import load_topics, open_pool
    from mimo_plugin.searching import read_topics

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
    from mimo_plugin.data.parallel import ParallelOptions, make_pairs
    from mimo_plugin.data.parallel_specs import parse_sources

    base.mkdir(parents=True)
    rows = [f"an English sentence {n}\tein deutscher Satz {n}" for n in range(6)]
    (base / "de.tsv").write_text("\n".join(rows) + "\n")
    (base / "fi.tsv").write_bytes((base / "de.tsv").read_bytes())

    def read(directory: Path, output: Path) -> None:
        specs = [f"{lang}={directory / lang}.tsv" for lang in ("de", "fi")]
        make_pairs(
            parse_sources(tsv=specs, moses=(), datasets=(), columns="a,b", split="train", anchor="en"),
            output,
            ParallelOptions(progress=False),
        )

    return Reader("TSV of parallel texts", base, ("de.tsv",), read)


def _recipe(base: Path) -> Reader:
    from mimo_plugin.cli.train_options import load_recipe

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
    read = lambda directory, _: load_recipe(directory / "recipe.yaml", {"seed": 4, "stage1.steps": 2})  # noqa: E731
    return Reader("training recipe", base, ("recipe.yaml",), read)


def _experiment(base: Path) -> Reader:
    from mimo_plugin.experiment.recipe import read_recipe

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
        lambda directory, _: read_recipe(directory / "experiment.yaml"),
    )


def _config(base: Path) -> Reader:
    from mimo_plugin.benchmarks.loading import load_config

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


def _npy_files(base: Path, rows: int = 10) -> Path:
    base.mkdir(parents=True)
    vectors = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    np.save(base / "vectors.npy", vectors)
    (base / "vectors.docid").write_text("".join(f"d{n}\n" for n in range(rows)))
    (base / "vectors.lang").write_text("".join(("de\n", "fi\n")[n % 2] for n in range(rows)))
    return base / "vectors.npy"


def import_file(file: Path, output: Path) -> None:
    """Brings vectors into a directory of ours; what is there then must be numbers."""
    from mimo_plugin.vectors import EncodeOptions, open_vectors
    from mimo_plugin.vectors.importing import import_vectors

    import_vectors([file], output, EncodeOptions(shard_size=4, progress=False))
    for batch in open_vectors([output]).batches():
        assert np.isfinite(batch.vectors).all(), "vectors that are no numbers were taken"


def _npy(base: Path) -> Reader:
    _npy_files(base)
    files = ("vectors.npy", "vectors.docid", "vectors.lang")
    return Reader(
        "vectors as .npy",
        base,
        files,
        lambda directory, output: import_file(directory / "vectors.npy", output),
    )


def _jsonl(base: Path) -> Reader:
    base.mkdir(parents=True)
    rows = [
        {"id": f"d{n}", "contents": f"Haus {n}", "vector": [n / 7, -1.5, 1e-3], "lang": "de"}
        for n in range(6)
    ]
    (base / "vectors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Reader(
        "vectors as JSON Lines",
        base,
        ("vectors.jsonl",),
        lambda directory, output: import_file(directory / "vectors.jsonl", output),
    )


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
    return Reader(
        "vectors as Parquet",
        base,
        ("vectors.parquet",),
        lambda directory, output: import_file(directory / "vectors.parquet", output),
    )


def _table(base: Path) -> Reader:
    from mimo_plugin.data.debian.table import read_tables

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
        lambda directory, _: read_tables([directory / "table.jsonl"], None),
    )


def _vectors(base: Path) -> Reader:
    from mimo_plugin.vectors import open_vectors
    from mimo_plugin.vectors.directory import VectorsDirectory

    import_file(_npy_files(base / "source"), base / "vectors")

    def read(directory: Path, _: Path) -> None:
        VectorsDirectory(directory / "vectors").refuse_foreign()
        list(open_vectors([directory / "vectors"]).batches())

    return Reader(
        "vectors: manifest and shard record", base, ("vectors/manifest.json", "vectors/00000.json"), read
    )


def _index(base: Path) -> Reader:
    from mimo_plugin.indexing import IndexOptions, index_vectors
    from mimo_plugin.indexing.directory import IndexDirectory
    from mimo_plugin.indexing.doc_languages import read_doc_languages
    from mimo_plugin.indexing.reader import open_index
    from mimo_plugin.vectors import open_vectors

    import_file(_npy_files(base / "source"), base / "vectors")
    index_vectors(open_vectors([base / "vectors"]), base / "index", IndexOptions(progress=False))

    def read(directory: Path, _: Path) -> None:
        IndexDirectory(directory / "index").refuse_foreign()
        read_doc_languages(directory / "index", ["d1"])
        opened = open_index(directory / "index")
        assert [opened.docids[row] for row in range(10)] == [f"d{row}" for row in range(10)]

    return Reader(
        "index: manifest, docid, lang", base, ("index/manifest.json", "index/docid", "index/lang"), read
    )


def _work(base: Path) -> Reader:
    """Work that was cut short, taken up again."""
    from mimo_plugin.vectors import read_manifest
    from mimo_plugin.vectors.directory import VectorsDirectory
    from mimo_plugin.vectors.work import take_up

    import_file(_npy_files(base / "source"), base / "vectors")
    plan = read_manifest(base / "vectors").plan
    (base / "vectors" / "manifest.json").unlink()
    (base / "vectors" / "plan.json").write_text(plan.model_dump_json())

    def read(directory: Path, _: Path) -> None:
        VectorsDirectory(directory / "vectors").refuse_foreign()
        take_up(directory / "vectors", plan).missing()

    return Reader(
        "vectors in the making: plan and shard record",
        base,
        ("vectors/plan.json", "vectors/00001.json"),
        read,
    )


def _lexical(base: Path) -> Reader:
    from mimo_plugin.lexical.directory import (
        Bm25Manifest,
        Bm25Plan,
        finish,
        finished,
        lucene_files,
        read_bm25_manifest,
        refuse_foreign,
    )

    base.mkdir(parents=True)
    for name in ("segments_1", "_0.cfs"):
        (base / name).write_bytes(b"Lucene's")
    plan = Bm25Plan(collection_fingerprint="0" * 64, documents=6, language=None, analyzer="Default")
    finish(
        base,
        Bm25Manifest(
            plan=plan,
            indexed=6,
            languages={"de": 6},
            note="",
            versions={"lucene": "10"},
            files=lucene_files(base),
        ),
    )

    def read(directory: Path, _: Path) -> None:
        refuse_foreign(directory)
        read_bm25_manifest(directory)
        finished(directory, plan)

    return Reader("BM25 index: manifest", base, ("manifest.json",), read)


def _data(base: Path) -> Reader:
    from mimo_plugin.data.manifest import Format, read_manifest
    from mimo_plugin.data.stored import PairsWriter, finished

    with PairsWriter(base, anchor="en", parameters={"seed": 1}, source={"made": "up"}) as writer:
        for number in range(6):
            writer.add(f"ein Satz {number}", "de", f"a sentence {number}")

    def read(directory: Path, _: Path) -> None:
        read_manifest(directory, Format.PAIRS)
        finished(directory, Format.PAIRS, anchor="en", parameters={"seed": 1}, source={"made": "up"})

    return Reader("training data: manifest", base, ("manifest.json",), read)


_IDENTITY = {
    "stage": "stage2",
    "seed": 3,
    "options": {"batch_size": 8},
    "teacher": {"checkpoint": "t", "vectors": {}},
}


def _training(base: Path) -> Reader:
    from mimo_plugin.manifests import FileRecord
    from mimo_plugin.training.run_directory import (
        RunDirectory,
        TrainingManifest,
        differences,
        read_training_manifest,
    )

    run = RunDirectory(base)
    run.begin(_IDENTITY)
    run.model.mkdir()
    (run.model / "model.safetensors").write_bytes(b"weights")
    run.finish(
        TrainingManifest(
            stage="stage2",
            identity=_IDENTITY,
            environment={"device": "cpu"},
            steps=10,
            languages={"de": 4},
            best_step=None,
            scores={"ndcg@20": 0.25},
            seconds=1.5,
            files={"model/model.safetensors": FileRecord.of(run.model / "model.safetensors")},
        )
    )

    def read(directory: Path, _: Path) -> None:
        RunDirectory(directory).refuse_foreign()
        differences(_IDENTITY, read_training_manifest(directory).identity)

    return Reader("training run: manifest", base, ("manifest.json",), read)


def _begun(base: Path) -> Reader:
    from mimo_plugin.training.identity import only_vectors, without_places
    from mimo_plugin.training.run_directory import RunDirectory, differences

    RunDirectory(base).begin(_IDENTITY)

    def read(directory: Path, _: Path) -> None:
        begun = RunDirectory(directory).begun()
        if begun is not None:
            differences(without_places(_IDENTITY), without_places(begun))
            differences(only_vectors(_IDENTITY), only_vectors(begun))

    return Reader("training run in the making: recipe", base, ("recipe.yaml",), read)


def _metrics(base: Path) -> Reader:
    from mimo_plugin.training.curve_data import has, read_stages

    base.mkdir(parents=True)
    lines = [{"step": n, "stage": "stage2", "loss": 1 / n} for n in range(1, 5)]
    lines.append({"step": 4, "stage": "stage2", "dev": {"ndcg@20": 0.5}})
    (base / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def read(directory: Path, _: Path) -> None:
        stages = read_stages(directory / "metrics.jsonl")
        has(stages, "loss", dev=False)
        has(stages, "ndcg@20", dev=True)

    return Reader("metrics of a training run", base, ("metrics.jsonl",), read)


def _store(base: Path) -> Reader:
    from mimo_plugin.training.teacher_manifest import Identity, StoreManifest
    from mimo_plugin.training.teacher_store import KEYS, SUMS, VECTORS, TeacherStore, row_sums
    from mimo_plugin.training.text_keys import KEY

    base.mkdir(parents=True)
    identity = Identity(
        teacher="t",
        files=None,
        fingerprint="0" * 64,
        query_prompt="query: ",
        passage_prompt="",
        max_length=64,
        dtype="float16",
        compute_dtype="float32",
        dimension=4,
    )
    (base / KEYS).write_bytes(np.arange(6 * KEY.itemsize, dtype=np.uint8).tobytes())
    (base / VECTORS).write_bytes(np.ones((6, 4), dtype="<f2").tobytes())
    (base / SUMS).write_bytes(row_sums(np.ones((6, 4), dtype="<f2")).tobytes())
    crc32 = zlib.crc32((base / KEYS).read_bytes())
    StoreManifest(identity=identity, rows=6, keys_crc32=crc32, versions={"torch": "2"}).write(base)
    return Reader(
        "teacher store: manifest", base, ("manifest.json",), lambda directory, _: TeacherStore.open(directory)
    )


def _notes(base: Path) -> Reader:
    """What `mimo reproduce` notes of a run and a collection; damaged notes are none."""
    from mimo_plugin.manifests import FileRecord
    from mimo_plugin.reproduction.looking import Note, _read
    from mimo_plugin.reproduction.made import MadeRun, RunPlace

    place = RunPlace(base, "a")
    place.file.parent.mkdir(parents=True)
    place.file.write_bytes(gzip.compress(b"q1 Q0 d1 1 1.0 a\n", mtime=0))
    place.finish(
        MadeRun(
            system="a",
            key="k",
            seconds={"index": 1.5},
            queries=1,
            lines=1,
            run=FileRecord.of(place.file),
            details={},
        )
    )
    note = Note(
        documents=6,
        empty=0,
        languages={"de": 6},
        fingerprint="0" * 64,
        text_bytes=60,
        sample=("Haus",),
        docids=None,
        judged=None,
        judged_count=None,
    )
    (base / "all.json").write_text(note.model_dump_json())

    def read(directory: Path, _: Path) -> None:
        RunPlace(directory, "a").finished("k")
        _read(directory / "all.json")

    return Reader("notes of a reproduction", base, ("runs/a.json", "all.json"), read)


# Name -> what writes a reader's valid files into a new directory.
READERS: dict[str, Callable[[Path], Reader]] = {
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
    "vectors: manifest and shard record": _vectors,
    "index: manifest, docid, lang": _index,
    "vectors in the making: plan and shard record": _work,
    "BM25 index: manifest": _lexical,
    "training data: manifest": _data,
    "training run: manifest": _training,
    "training run in the making: recipe": _begun,
    "metrics of a training run": _metrics,
    "teacher store: manifest": _store,
    "notes of a reproduction": _notes,
}
