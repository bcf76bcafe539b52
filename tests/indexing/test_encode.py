"""`mimo encode`: what it writes, its parts, and that a kill at any moment costs two shards at most."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet
import pytest
from helpers import processes
from helpers.beir import documents, write_folder
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.collections.dataset import Pool
from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, UsageError
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.build import index_vectors
from mimo_plugin.indexing.encode import Encoded, encode_collections
from mimo_plugin.indexing.open import Index
from mimo_plugin.indexing.settings import EncodeOptions, IndexOptions, Part
from mimo_plugin.indexing.vectors import VECTORS, Shards, open_vectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(50))


Encode = Callable[..., Encoded]


@pytest.fixture
def encode(folder: str, student: Encoder, tmp_path: Path) -> Encode:
    def run(output: Path = tmp_path / "vectors", shard: str | None = None, **options: object) -> Encoded:
        settings = EncodeOptions(
            **{"shard_size": 8, "progress": False, "shard": Part.parse(shard), **options}
        )
        return encode_collections([folder], student, output, settings)

    return run


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.threads
def test_any_tool_reads_the_vectors(encode: Encode, folder: str, student: Encoder, tmp_path: Path) -> None:
    done = encode()
    table = pyarrow.parquet.read_table(sorted((tmp_path / "vectors").glob("*.parquet")))
    docs = list(load(folder).docs_iter())
    assert table.column("docid").to_pylist() == [doc.doc_id for doc in docs]
    assert table.column("lang").to_pylist() == [doc.lang for doc in docs]
    vectors = np.asarray(table.column("vector").to_pylist(), dtype=np.float32)
    assert np.abs(vectors - student.encode_documents([doc.text for doc in docs])).max() <= 1e-6
    assert done.encoded == 50
    assert done.manifest == Artifact(tmp_path / "vectors", VECTORS).read()
    assert done.manifest.languages == {"de": 17, "fi": 17, "ja": 16}
    before = files(tmp_path / "vectors")
    assert encode().already
    assert files(tmp_path / "vectors") == before


def test_an_index_of_vectors_is_the_one_of_the_collection(
    encode: Encode, folder: str, student: Encoder, tmp_path: Path
) -> None:
    encode()
    options = IndexOptions(shard_size=8, progress=False)
    built = build_index([folder], student, tmp_path / "direct", options)
    again = index_vectors(open_vectors([tmp_path / "vectors"]), tmp_path / "index", options)
    assert files(tmp_path / "index") == files(tmp_path / "direct")
    assert again.manifest == built.manifest
    assert (again.encoded, again.resumed) == (0, 50)
    squeezed = index_vectors(
        open_vectors([tmp_path / "vectors"]), tmp_path / "sq8", IndexOptions(factory="SQ8", progress=False)
    )
    assert faiss.read_index(str(tmp_path / "sq8" / "index")).ntotal == 50
    assert squeezed.manifest.plan.factory == "SQ8"


@pytest.mark.threads
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_make_the_whole(encode: Encode, tmp_path: Path, order: tuple[int, ...]) -> None:
    encode(tmp_path / "whole")
    parts = [tmp_path / f"part-{number}" for number in order]
    for number, part in zip(order, parts, strict=True):
        done = encode(part, shard=f"{number}/3")
        assert done.manifest.plan.documents == sum(done.manifest.languages.values())
    shards = {name: content for part in parts for name, content in files(part).items() if name[0] == "0"}
    assert shards == {name: content for name, content in files(tmp_path / "whole").items() if name[0] == "0"}
    together = open_vectors(parts)
    assert together.plan == Artifact(tmp_path / "whole", VECTORS).read().plan
    options = IndexOptions(progress=False)
    index_vectors(together, tmp_path / "from-parts", options)
    index_vectors(open_vectors([tmp_path / "whole"]), tmp_path / "from-whole", options)
    assert files(tmp_path / "from-parts") == files(tmp_path / "from-whole")


def test_an_index_of_a_part_alone(encode: Encode, folder: str, student: Encoder, tmp_path: Path) -> None:
    encode(tmp_path / "part", shard="2/2")
    options = IndexOptions(shard_size=8, shard=Part(2, 2), progress=False)

    def direct(**changes: object) -> Index:
        return build_index([folder], student, tmp_path / "direct", options)

    assert direct().manifest.plan.shard == "2/2"
    index_vectors(open_vectors([tmp_path / "part"]), tmp_path / "index", options)
    assert files(tmp_path / "index") == files(tmp_path / "direct")
    assert (tmp_path / "index" / "docid").read_text().splitlines() == [
        doc.doc_id for doc in load(folder).docs_iter()
    ][24:]


@given(documents=st.integers(1, 500), size=st.integers(1, 60), of=st.integers(1, 40))
def test_parts_cover_every_shard_once(documents: int, size: int, of: int) -> None:
    parts = [Part(number, of) for number in range(1, of + 1)]
    count = -(-documents // size)
    if of > count:
        with pytest.raises(UsageError, match=f"{count} shards of {size}, and cannot be cut into {of} parts"):
            parts[0].shards(documents, size)
        return
    assert [shard for part in parts for shard in part.shards(documents, size)] == list(range(count))
    sizes = [len(part.shards(documents, size)) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sum(part.documents(documents, size) for part in parts) == documents


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/0", ""])
def test_parts_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="i/n with 1 <= i <= n was expected"):
        Part.parse(text)


def test_parts_that_do_not_make_a_whole_are_named(encode: Encode, tmp_path: Path) -> None:
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    encode(one, shard="1/3")
    encode(two, shard="2/3")
    encode(other, shard="2/4")
    with pytest.raises(ArtifactError, match=r"part 3 of 3 is missing among .*one, .*two"):
        open_vectors([one, two])
    with pytest.raises(ArtifactError, match="part 1 of 3 is there more than once"):
        open_vectors([one, one, two])
    with pytest.raises(ArtifactError, match="with different cuts: 1/3, 2/4"):
        open_vectors([one, other])
    encode(tmp_path / "sized", shard="2/3", shard_size=5)
    with pytest.raises(ArtifactError, match="cannot be put together: shard_size is 5 and 8"):
        open_vectors([one, tmp_path / "sized"])


def test_collections_put_together(student: Encoder, checkpoint: Path, tmp_path: Path) -> None:
    rows = documents(30)
    specs = []
    for lang in ("de", "fi"):
        some = [row for row in rows if row["lang"] == lang]
        specs.append(write_folder(tmp_path / lang, some))
    options = EncodeOptions(shard_size=4, progress=False)

    def encode(spec: str, name: str, prefix: str | None, who: Encoder = student) -> Path:
        prefixes = None if prefix is None else {spec: prefix}
        pool = Pool(load(spec, pooled=prefix is not None), specs=(spec,), prefixes=prefixes)
        encode_collections(pool, who, tmp_path / name, options)
        return tmp_path / name

    plain = [encode(spec, f"plain-{at}", None) for at, spec in enumerate(specs)]
    both = open_vectors(plain)
    assert both.plan.documents == 20
    assert both.languages == {"de": 10, "fi": 10}
    assert [docid for batch in both.batches() for docid in batch.docids] == [
        row["_id"] for lang in ("de", "fi") for row in rows if row["lang"] == lang
    ]
    pooled = encode(specs[1], "pooled", "fi")
    with pytest.raises(ArtifactError, match="only one has ids as lang:id"):
        open_vectors([plain[0], pooled])
    same = encode(specs[0], "same", "fi")
    with pytest.raises(ArtifactError, match="both have ids that begin with fi"):
        open_vectors([pooled, same])
    cut = Encoder(str(checkpoint), EncoderOptions(max_length=7, pooling="cls"))
    with pytest.raises(
        ArtifactError, match=r"(?s)encoder_fingerprint is .*max_length is 7 and .*pooling is 'cls'"
    ):
        open_vectors([plain[0], encode(specs[1], "cut", None, cut)])


def test_what_lies_there_is_respected(encode: Encode, tmp_path: Path) -> None:
    output = tmp_path / "vectors"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds something else \(notes.txt\)"):
        encode()
    (output / "notes.txt").unlink()
    (output / "00000.parquet").write_bytes(b"somebody's")
    with pytest.raises(ArtifactError, match=r"holds something else \(00000.parquet\)"):
        encode()
    (output / "00000.parquet").unlink()
    encode()
    with pytest.raises(ArtifactError, match="holds vectors made otherwise: shard_size is 5, there it is 8"):
        encode(shard_size=5)
    assert encode(shard_size=5, resume=False).encoded == 50
    assert len(list(output.glob("*.parquet"))) == 10


def test_a_full_disk_and_a_directory_that_goes_away(
    encode: Encode, student: Encoder, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=100))
    with pytest.raises(EnvironmentProblem, match=r"has 100 B free and .* are needed \(50 documents"):
        encode()
    monkeypatch.undo()
    pool, gone = load(folder), itertools.count()

    class Removing(Pool):
        def docs_iter(self):
            for number, doc in enumerate(pool.docs_iter()):
                if number == 20 and (tmp_path / "vectors").exists():
                    # In one step: a shard may be written into it at that moment.
                    (tmp_path / "vectors").rename(tmp_path / f"gone-{next(gone)}")
                yield doc

    with pytest.raises(EnvironmentProblem, match="vectors was removed while it was written to"):
        encode_collections(
            Removing(specs=(folder,)),
            student,
            tmp_path / "vectors",
            EncodeOptions(shard_size=8, progress=False),
        )


@pytest.mark.threads
def test_a_shard_is_written_while_the_next_one_is_encoded(
    encode: Encode, student: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = threading.Event()
    encode_each, write = Encoder.encode_each, Shards.write

    def watched(self: Encoder, batches: Iterable[Any], *, advance: Callable[[int], Any]) -> Iterator[Any]:
        done = 0

        def counted(count: int) -> None:
            nonlocal done
            done += count
            if done > 8:
                going_on.set()
            advance(count)

        return encode_each(self, batches, advance=counted)

    def waiting(self: Shards, *arguments: Any) -> None:
        assert going_on.wait(60)
        write(self, *arguments)

    encode(tmp_path / "whole")
    monkeypatch.setattr(Encoder, "encode_each", watched)
    monkeypatch.setattr(Shards, "write", waiting)
    encode()
    assert files(tmp_path / "vectors") == files(tmp_path / "whole")


@pytest.mark.threads
def test_a_vector_that_is_no_number_costs_nothing_that_was_encoded_before(
    encode: Encode, student: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, calls = Encoder._finished, 0

    def broken(self: Encoder, side: Any, vectors: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            vectors[5] = np.nan
        return finished(self, side, vectors)

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "_finished", broken)
        with pytest.raises(NotFinite, match="for document d21"):
            encode()
    assert len(list((tmp_path / "vectors").glob("*.parquet"))) == 2
    assert encode().resumed == 16


def test_a_collection_that_changes_meanwhile(student: Encoder, tmp_path: Path) -> None:
    docs = list(load(write_folder(tmp_path / "folder", documents(20))).docs_iter())

    class Shrinking(Pool):
        reads = 0

        def docs_iter(self):
            self.reads += 1
            return iter(docs if self.reads == 1 else docs[:13])

    with pytest.raises(ArtifactError, match="changed since it was surveyed"):
        encode_collections(
            Shrinking(specs=("it",)),
            student,
            tmp_path / "vectors",
            EncodeOptions(shard_size=8, progress=False),
        )


@given(data=st.data())
def test_no_byte_changes_unnoticed(damaged: Path, data: st.DataObject) -> None:
    names = sorted(path.name for path in damaged.iterdir())
    path = damaged / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[position]))
    path.write_bytes(content[:position] + bytes([changed]) + content[position + 1 :])
    try:
        with pytest.raises(ArtifactError) as caught:
            list(open_vectors([damaged]).batches())
        assert path.stem in str(caught.value)
    finally:
        path.write_bytes(content)
    assert len(list(open_vectors([damaged]).batches())) == 3


@pytest.fixture(scope="module")
def damaged(student: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("damaged")
    spec = write_folder(directory / "folder", documents(20))
    options = EncodeOptions(shard_size=8, progress=False)
    encode_collections([spec], student, directory / "vectors", options)
    return directory / "vectors"


def test_a_damaged_shard_is_named_on_resuming(encode: Encode, tmp_path: Path) -> None:
    done = encode()
    output = tmp_path / "vectors"
    (output / "manifest.json").unlink()
    (output / "plan.json").write_text(done.manifest.plan.model_dump_json())
    path = output / "00002.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"00002.parquet differs .* delete it and its .json"):
        encode()
    path.unlink()
    (output / "00002.json").unlink()
    again = encode()
    assert (again.encoded, again.resumed) == (8, 42)
    assert again.manifest == done.manifest


def test_duplicates_are_found_before_anything_is_encoded(student: Encoder, tmp_path: Path) -> None:
    spec = write_folder(tmp_path / "folder", [*documents(5), {**documents(5)[2], "text": "anders"}])
    with pytest.raises(DataError, match=r"occurs 2 times .* with different content.*--duplicates first"):
        encode_collections([spec], student, tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists()


@pytest.mark.parametrize("same", [True, False])
def test_copies_of_documents_are_left_out_everywhere_alike(
    student: Encoder, tmp_path: Path, same: bool
) -> None:
    """Whole, in parts, resumed: as if only the first of each docid were there."""
    rows = documents(40)
    again = [rows[3], rows[17]] if same else [{**rows[3], "text": "anders"}, {**rows[17], "lang": "xx"}]
    once = write_folder(tmp_path / "once", rows)
    more = write_folder(tmp_path / "more", [*rows[:20], again[0], *rows[20:], again[1], again[1]])
    options = EncodeOptions(shard_size=7, progress=False, duplicates="error" if same else "first")

    def encode(spec: str, name: str, **changes: Any) -> Encoded:
        return encode_collections(
            Pool(load(spec), specs=("c",)), student, tmp_path / name, replace(options, **changes)
        )

    alone, done = encode(once, "alone"), encode(more, "done")
    assert done.manifest.files == alone.manifest.files
    assert done.manifest.languages == alone.manifest.languages
    assert done.manifest.plan == alone.manifest.plan.model_copy(update={"copies": 3})
    assert "3 documents were left out: an earlier one has their docid" in done.summary(tmp_path)
    assert "left out" not in alone.summary(tmp_path)
    # The collection without its copies is the same collection, for work that was done before.
    assert encode(once, "done").already
    (tmp_path / "done" / "manifest.json").unlink()
    (tmp_path / "done" / "plan.json").write_text(done.manifest.plan.model_dump_json())
    for end in ("parquet", "json"):
        (tmp_path / "done" / f"00003.{end}").unlink()
    assert encode(more, "done").encoded == 7
    assert Artifact(tmp_path / "done", VECTORS).read().files == alone.manifest.files
    parts = [encode(more, f"part{number}", shard=Part(number, 2)) for number in (1, 2)]
    assert sum(part.manifest.plan.documents for part in parts) == 40
    joined = open_vectors([tmp_path / "part1", tmp_path / "part2"])
    docids = [docid for batch in joined.batches() for docid in batch.docids]
    assert docids == [row["_id"] for row in rows]


def test_shards_of_another_shape_are_refused(encode: Encode, tmp_path: Path) -> None:
    encode()
    shards = Shards(tmp_path / "vectors", 50, 8, 3)
    with pytest.raises(ArtifactError, match=r"expected \(8, 3\): start over"):
        shards.missing()


@pytest.mark.threads
@pytest.mark.slow
def test_killed_and_started_again_it_is_byte_identical(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_folder(tmp_path / "folder", documents(400))
    command = ["encode", spec, "--encoder", str(checkpoint), "--batch-size", "4", "--shard-size", "25"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    output = tmp_path / "killed"
    command += ["--output", str(output)]
    processes.kill(processes.command(*command), lambda: len(list(output.glob("*.parquet"))) >= 3)
    with pytest.raises(ArtifactError, match="has no manifest.json, expected vectors"):
        open_vectors([output])
    capsys.readouterr()
    assert main(command) == 0
    assert "documents were encoded before and kept" in capsys.readouterr().out
    assert files(output) == files(tmp_path / "whole")
