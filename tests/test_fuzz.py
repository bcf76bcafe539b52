"""Readers fed with damaged files: in a moment a result or an error of ours, and nothing left behind.

`performance/reliability.py --only fuzz` does the same for minutes.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.readers import READERS, Reader, import_file
from hypothesis import HealthCheck, Phase, given, settings
from pyarrow import parquet

from mimo_plugin.core.errors import DataError

_DEEP = b"[" * 3000
_HUGE = b"9" * 400
_BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(98, 123))

# What was found by fuzzing, or looks as if it could be.
FOUND = [
    ("BEIR queries and qrels", "qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq0\td0\t" + _HUGE),
    ("BEIR queries and qrels", "qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq0\td0\t1_0"),
    ("folder of the paper's layout", "qrels.jsonl", b'{"q0": {"d0": ' + _HUGE + b"}}"),
    ("BEIR corpus", "corpus.jsonl", b'{"_id": "\\ud800", "text": "x"}'),
    ("BEIR corpus", "corpus.jsonl", b'{"_id": "a\\u0000", "text": "x"}'),
    ("BEIR corpus", "corpus.jsonl", b'{"_id": ' + _DEEP),
    ("training recipe", "recipe.yaml", _BOMB),
    ("training recipe", "recipe.yaml", b"a: &a [*a]"),
    ("training recipe", "recipe.yaml", b"a: " + _DEEP),
    ("training recipe", "recipe.yaml", b"!!float x: 8"),
    ("training recipe", "recipe.yaml", b"seed: 2024-13-45"),
    ("experiment recipe", "experiment.yaml", b"name: *x"),
    ("training run in the making: recipe", "recipe.yaml", b"stage: stage1\nteacher:"),
    ("training run in the making: recipe", "recipe.yaml", b"data: 1"),
    ("metrics of a training run", "metrics.jsonl", b'{"step": ' + _HUGE + b', "loss": 1}'),
    ("metrics of a training run", "metrics.jsonl", _DEEP),
    ("training data: manifest", "manifest.json", b'{"format": []}'),
    ("training data: manifest", "manifest.json", _DEEP),
    ("BM25 index: manifest", "manifest.json", _DEEP),
    ("index: manifest, docid, lang", "index/manifest.json", _DEEP),
    ("vectors: manifest and shard record", "vectors/manifest.json", _DEEP),
    ("vectors: manifest and shard record", "vectors/00000.json", b'{"file": "\\ud800", "checksum": "x"}'),
    ("vectors as .npy", "vectors.npy", b"\x93NUMPY\x01\x00v\x00{'descr': (((" + b" " * 200),
    ("vectors as JSON Lines", "vectors.jsonl", b'{"id": "a", "vector": [' + _HUGE + b"]}"),
    ("vectors as JSON Lines", "vectors.jsonl", b'{"id": "a", "vector": [1e39]}'),
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reader]:
    base = tmp_path_factory.mktemp("readers")
    made: dict[str, Reader] = {}

    def make(name: str) -> Reader:
        if name not in made:
            made[name] = READERS[name](base / str(len(made)))
        return made[name]

    return make


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(reader: Callable[[str], Reader], name: str) -> None:
    whole = reader(name)
    for file in whole.files:
        assert whole.attempt(file, (whole.directory / file).read_bytes()) is None

    @settings(
        max_examples=25,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(whole.damage())
    def read(damage: tuple[str, bytes]) -> None:
        whole.attempt(*damage)

    read()


@pytest.mark.parametrize(("name", "file", "content"), FOUND)
def test_what_was_found(reader: Callable[[str], Reader], name: str, file: str, content: bytes) -> None:
    assert reader(name).attempt(file, content) is not None


def test_a_number_beyond_every_type_is_no_metric(reader: Callable[[str], Reader]) -> None:
    assert (
        reader("metrics of a training run").attempt("metrics.jsonl", b'{"step": 1, "loss": %b}' % _HUGE)
        is None
    )


def test_names_that_are_no_text(tmp_path: Path) -> None:
    docids = pa.array([b"\xe0d"], pa.binary()).cast(pa.string(), safe=False)
    table = pa.table({"docid": docids, "vector": [[1.0, 2.0]]})
    parquet.write_table(table, tmp_path / "vectors.parquet")
    with pytest.raises(DataError, match="vectors.parquet: cannot be read as Parquet"):
        import_file(tmp_path / "vectors.parquet", tmp_path / "output")
