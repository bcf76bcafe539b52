"""The readers of what the package wrote: manifests, notes, work that was cut short."""

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers.input_readers import import_file, npy_files
from helpers.reading import Reader

from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.config import yaml_text


def _vectors(base: Path) -> Reader:
    from mimo_plugin.indexing.vectors import VECTORS, open_vectors

    import_file(npy_files(base / "source"), base / "vectors")

    def read(directory: Path, _: Path) -> None:
        Artifact(directory / "vectors", VECTORS).check_output()
        list(open_vectors([directory / "vectors"]).batches())

    return Reader(
        "vectors: manifest and shard record", base, ("vectors/manifest.json", "vectors/00000.json"), read
    )


def _index(base: Path) -> Reader:
    from mimo_plugin.indexing.build import index_vectors
    from mimo_plugin.indexing.open import INDEXES, open_index, read_doc_languages
    from mimo_plugin.indexing.settings import IndexOptions
    from mimo_plugin.indexing.vectors import open_vectors

    import_file(npy_files(base / "source"), base / "vectors")
    vectors, options = open_vectors([base / "vectors"]), IndexOptions(progress=False)
    index_vectors(vectors, base / "index", options, texts=lambda docids: [f"text of {one}" for one in docids])

    def read(directory: Path, _: Path) -> None:
        Artifact(directory / "index", INDEXES).check_output()
        read_doc_languages(directory / "index", ["d1"])
        opened = open_index(directory / "index")
        assert [opened.docids[row] for row in range(10)] == [f"d{row}" for row in range(10)]
        assert opened.texts(["d3"]) == {"d3": "text of d3"}

    files = ("manifest.json", "docid", "lang", "texts.parquet")
    return Reader("index: manifest, docid, lang", base, tuple(f"index/{file}" for file in files), read)


def _work(base: Path) -> Reader:
    """Work that was cut short, taken up again."""
    from mimo_plugin.indexing.vectors import VECTORS, take_up

    import_file(npy_files(base / "source"), base / "vectors")
    plan = Artifact(base / "vectors", VECTORS).read().plan
    (base / "vectors" / "manifest.json").unlink()
    (base / "vectors" / "plan.json").write_text(plan.model_dump_json())

    def read(directory: Path, _: Path) -> None:
        Artifact(directory / "vectors", VECTORS).check_output()
        take_up(directory / "vectors", plan).missing()

    return Reader(
        "vectors in the making: plan and shard record",
        base,
        ("vectors/plan.json", "vectors/00001.json"),
        read,
    )


def _lexical(base: Path) -> Reader:
    from mimo_plugin.core.artifact import differences
    from mimo_plugin.pyserini.bm25 import BM25_INDEXES, Bm25Manifest, Bm25Plan, lucene_files

    index = Artifact(base, BM25_INDEXES)
    base.mkdir(parents=True)
    for name in ("segments_1", "_0.cfs"):
        (base / name).write_bytes(b"Lucene's")
    plan = Bm25Plan(collection_fingerprint="0" * 64, documents=6, language=None, analyzer="Default")
    index.seal(
        Bm25Manifest(
            plan=plan,
            indexed=6,
            languages={"de": 6},
            note="",
            versions={"lucene": "10"},
            files=lucene_files(base),
        )
    )

    def read(directory: Path, _: Path) -> None:
        index = Artifact(directory, BM25_INDEXES)
        index.check_output()
        index.refuse(list(differences(plan, index.read().plan).values()))

    return Reader("BM25 index: manifest", base, ("manifest.json",), read)


def _data(base: Path) -> Reader:
    from mimo_plugin.data.writers import PairsWriter
    from mimo_plugin.training.data import Format, read_manifest

    with PairsWriter(base, anchor="en", parameters={"seed": 1}, source={"made": "up"}) as writer:
        for number in range(6):
            writer.add(f"ein Satz {number}", "de", f"a sentence {number}")

    def read(directory: Path, _: Path) -> None:
        read_manifest(directory, Format.PAIRS)
        PairsWriter(directory, anchor="en", parameters={"seed": 1}, source={"made": "up"}).finished()

    return Reader("training data: manifest", base, ("manifest.json",), read)


_IDENTITY = {
    "stage": "stage2",
    "seed": 3,
    "options": {"batch_size": 8},
    "teacher": {"checkpoint": "t", "vectors": {}},
}


def _training(base: Path) -> Reader:
    from mimo_plugin.core.artifact import FileRecord
    from mimo_plugin.training.run import RunDirectory, TrainingManifest, differences

    run = RunDirectory(base)
    run.model.mkdir(parents=True)
    run.begin(yaml_text(_IDENTITY))
    (run.model / "model.safetensors").write_bytes(b"weights")
    run.seal(
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
        RunDirectory(directory).check_output()
        differences(_IDENTITY, RunDirectory(directory).read().identity)

    return Reader("training run: manifest", base, ("manifest.json",), read)


def _begun(base: Path) -> Reader:
    from mimo_plugin.training.run import RunDirectory, differences

    base.mkdir(parents=True)
    RunDirectory(base).begin(yaml_text(_IDENTITY))

    def read(directory: Path, _: Path) -> None:
        begun = RunDirectory(directory).begun()
        if begun is not None:
            RunDirectory(directory).refuse(differences(_IDENTITY, begun))

    return Reader("training run in the making: recipe", base, ("recipe.yaml",), read)


def _metrics(base: Path) -> Reader:
    from mimo_plugin.training.run import read_metrics

    base.mkdir(parents=True)
    lines = [{"step": n, "stage": "stage2", "loss": 1 / n} for n in range(1, 5)]
    lines.append({"step": 4, "stage": "stage2", "dev": {"ndcg@20": 0.5}})
    (base / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def read(directory: Path, _: Path) -> None:
        metrics = read_metrics(directory / "metrics.jsonl")
        metrics.series("loss", dev=False)
        metrics.series("ndcg@20", dev=True)

    return Reader("metrics of a training run", base, ("metrics.jsonl",), read)


def _store(base: Path) -> Reader:
    from mimo_plugin.training.teacher_store import (
        KEY,
        KEYS,
        SUMS,
        VECTORS,
        Identity,
        StoreDirectory,
        StoreManifest,
        TeacherStore,
        row_sums,
    )

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
    manifest = StoreManifest(identity=identity, rows=6, keys_crc32=crc32, versions={"torch": "2"})
    StoreDirectory(base).seal(manifest)
    return Reader(
        "teacher store: manifest", base, ("manifest.json",), lambda directory, _: TeacherStore.open(directory)
    )


def _notes(base: Path) -> Reader:
    """What `mimo reproduce` notes of a run and a collection; damaged notes are none."""
    from mimo_plugin.benchmark.parts import SurveyNote, read_note
    from mimo_plugin.benchmark.systems import MadeRun, RunPlace
    from mimo_plugin.core.artifact import FileRecord

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
    note = SurveyNote(
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
        read_note(directory / "all.json", SurveyNote)

    return Reader("notes of a reproduction", base, ("runs/a.json", "all.json"), read)


# Name -> what writes a reader's valid files into a new directory.
ARTIFACTS: dict[str, Callable[[Path], Reader]] = {
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
