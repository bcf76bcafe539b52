"""The store gives what the teacher gives, for whatever was asked before, killed or resumed."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import processes
from helpers.checkpoints import TEXTS, plain_xlmr
from helpers.limits import no_file_beyond
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, ModelError, UsageError
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.encoder.packaged import TEACHER
from mimo_plugin.training.models import TeacherOptions
from mimo_plugin.training.recipe import Recipe
from mimo_plugin.training.teacher import fill
from mimo_plugin.training.teacher_store import (
    KEY,
    KeyIndex,
    Role,
    StoreDirectory,
    TeacherStore,
    load_teacher,
    text_keys,
)

LONG = "a long description of a package " * 60
ENGLISH = ["Real-time strategy game of ancient warfare", "shared library", "x", "", LONG]
FILES = ("keys", "manifest.json", "sums", "vectors")
REAL = TeacherOptions(checkpoint=TEACHER, dtype="float32").on("cpu")


def replace(options: TeacherOptions, **changes: object) -> TeacherOptions:
    return options.model_copy(update=changes)


@pytest.fixture(scope="module")
def teacher() -> Encoder:
    return Encoder(TEACHER, EncoderOptions(device="cpu"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TeacherOptions:
    """A teacher with random weights that encodes in no time."""
    directory = plain_xlmr(tmp_path_factory.mktemp("teacher"))
    return TeacherOptions(checkpoint=str(directory), dtype="float32", batch_size=4).on("cpu")


def content(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in FILES}


@pytest.mark.threads
def test_vectors_are_the_teachers(teacher: Encoder, tmp_path: Path) -> None:
    options = replace(REAL, query_prompt="query: ")
    filled = fill(tmp_path / "store", options, {Role.QUERY: ENGLISH, Role.PASSAGE: ENGLISH, Role.TEXT: TEXTS})
    assert filled == 3 * len(ENGLISH)
    store = TeacherStore.open(tmp_path / "store", expect=options)
    assert (store.dimension, store.manifest.identity.dtype, store.fingerprint) == (
        384,
        "float32",
        teacher.fingerprint,
    )
    for role, texts, prompt in (
        (Role.QUERY, ENGLISH, "query: "),
        (Role.PASSAGE, ENGLISH, ""),
        (Role.TEXT, TEXTS, ""),
    ):
        found = store.vectors(texts, role)
        assert (found.dtype, found.shape) == (np.float32, (5, 384))
        assert np.abs(found - teacher.encode_documents(texts, prompt=prompt)).max() <= 1e-6
    shuffled = [ENGLISH[2], LONG, ENGLISH[2]]
    assert np.array_equal(store.vectors(shuffled, Role.QUERY), store.vectors(ENGLISH, Role.QUERY)[[2, 4, 2]])


def test_float16_only_rounds_and_the_length_cuts(teacher: Encoder, tmp_path: Path) -> None:
    options = replace(REAL, dtype="float16", max_length=8)
    fill(tmp_path / "store", options, {Role.PASSAGE: ENGLISH})
    found = TeacherStore.open(tmp_path / "store").vectors(ENGLISH, Role.PASSAGE)
    expected = teacher.encode_documents(ENGLISH, max_length=8)
    # Half a unit in the last place: ten bits behind the first one.
    assert np.abs(found - expected).max() <= np.abs(expected).max() * 2.0**-11 + 1e-6
    assert np.abs(found[-1] - teacher.encode_documents([LONG])[0]).max() > 1e-3


@pytest.mark.parametrize("narrow", [False, True])
def test_a_narrow_teacher_is_warned_about(
    small: TeacherOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture, narrow: bool
) -> None:
    """Random weights give all texts nearly the same vector."""
    fill(tmp_path, small if narrow else REAL, {Role.TEXT: TEXTS})
    store = TeacherStore.open(tmp_path)
    vectors = np.unique(store.vectors(TEXTS, Role.TEXT), axis=0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = (unit @ unit.T)[~np.eye(len(unit), dtype=bool)].mean()
    assert store.mean_cosine() == pytest.approx(expected, abs=1e-5)
    store.warn_if_narrow()
    assert ("mean cosine of" in caplog.text) is narrow


def test_a_store_of_one_text_has_no_mean_cosine(small: TeacherOptions, tmp_path: Path) -> None:
    fill(tmp_path, small, {Role.TEXT: TEXTS[:1]})
    store = TeacherStore.open(tmp_path)
    assert np.isnan(store.mean_cosine())
    store.warn_if_narrow()


def test_a_text_without_prompt_is_computed_once_for_all_roles(small: TeacherOptions, tmp_path: Path) -> None:
    first = fill(tmp_path, small, {Role.PASSAGE: TEXTS * 3, Role.TEXT: TEXTS, Role.QUERY: TEXTS[:2]})
    assert (first, _rows(tmp_path)) == (len(TEXTS), len(TEXTS))
    again = fill(tmp_path, small, {Role.TEXT: [*TEXTS, "new"]})
    assert (again, _rows(tmp_path)) == (1, len(TEXTS) + 1)
    store = TeacherStore.open(tmp_path)
    assert np.array_equal(store.vectors(TEXTS, Role.QUERY), store.vectors(TEXTS, Role.TEXT))
    assert len(store) == len(TEXTS) + 1


def test_the_teacher_is_loaded_only_if_something_is_missing(
    small: TeacherOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, small, {Role.TEXT: TEXTS})
    monkeypatch.setattr(
        "mimo_plugin.training.teacher_store.Encoder", lambda *_: pytest.fail("the teacher was loaded")
    )
    assert fill(tmp_path, small, {Role.TEXT: TEXTS}) == 0
    TeacherStore.open(tmp_path, expect=small)


def test_a_missing_text_is_named(small: TeacherOptions, tmp_path: Path) -> None:
    fill(tmp_path, replace(small, query_prompt="q: "), {Role.PASSAGE: TEXTS})
    store = TeacherStore.open(tmp_path)
    with pytest.raises(DataError, match=r"no vector of the passage 'nowhere': it was filled from other data"):
        store.vectors(["nowhere", TEXTS[0]], Role.PASSAGE)
    with pytest.raises(DataError, match=r"query 'Ein kurzer .*\.\.\.' \(nor of 1 others of 2\)"):
        store.vectors([TEXTS[0] * 2, "x"], Role.QUERY)


def test_other_vectors_are_refused(small: TeacherOptions, tmp_path: Path) -> None:
    store, other = tmp_path / "store", plain_xlmr(tmp_path / "other", seed=1)
    fill(store, small, {Role.TEXT: TEXTS})
    for changed, message in (
        (replace(small, query_prompt="query: "), "its query prompt is '', expected 'query: '"),
        (replace(small, passage_prompt="p"), "its passage prompt is '', expected 'p'"),
        (replace(small, max_length=9), "its max length is 64, expected 9"),
        (replace(small, dtype="float16"), "its dtype is 'float32', expected 'float16'"),
        (replace(small, compute_dtype="bfloat16"), "compute dtype is 'float32', expected 'bfloat16'"),
        (replace(small, attention="eager"), "its attention is None, expected 'eager'"),
        (replace(small, checkpoint=str(other)), f"expected {other} with weights"),
    ):
        with pytest.raises(ArtifactError, match=f"store holds a teacher store made otherwise: .*{message}"):
            fill(store, changed, {Role.TEXT: TEXTS})
        with pytest.raises(ArtifactError, match=message):
            TeacherStore.open(store, expect=changed)
    # The same weights under another name are the same teacher.
    copy = shutil.copytree(small.checkpoint, tmp_path / "copy")
    assert fill(store, replace(small, checkpoint=str(copy)), {Role.TEXT: [*TEXTS, "new"]}) == 1


def test_the_number_format_is_the_devices_or_that_of_the_store(
    small: TeacherOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small.compute_dtype is None
    fill(tmp_path / "old", small, {Role.TEXT: TEXTS})
    halved = replace(small, compute_dtype="bfloat16", attention="eager")
    fill(tmp_path / "half", halved, {Role.TEXT: TEXTS})
    exact, rough = (TeacherStore.open(tmp_path / name) for name in ("old", "half"))
    assert [store.manifest.identity.compute_dtype for store in (exact, rough)] == ["float32", "bfloat16"]
    difference = np.abs(exact.vectors(TEXTS, Role.TEXT) - rough.vectors(TEXTS, Role.TEXT)).max()
    assert 0 < difference < 0.02
    # A store goes on as it was begun, on whatever device: here one that would begin in bfloat16.
    monkeypatch.setattr("mimo_plugin.training.teacher_store.check_device", lambda device: "cuda:0")
    fill(tmp_path / "new", small.on(None), {})
    assert StoreDirectory(tmp_path / "new").read().identity.compute_dtype == "bfloat16"
    loaded: list[EncoderOptions] = []

    def loading(checkpoint: str, options: EncoderOptions) -> Encoder:
        loaded.append(options)
        return Encoder(checkpoint, options)

    monkeypatch.setattr("mimo_plugin.training.teacher_store.Encoder", loading)
    for name in ("old", "half"):
        assert fill(tmp_path / name, small, {Role.TEXT: [*TEXTS, "new"]}) == 1
        TeacherStore.open(tmp_path / name, expect=small)
    assert [(found.dtype, found.attention) for found in loaded] == [("float32", None), ("bfloat16", "eager")]


def test_a_store_of_an_earlier_version_opens(small: TeacherOptions, tmp_path: Path) -> None:
    fill(tmp_path, small, {Role.TEXT: TEXTS})
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["checksum"], manifest["identity"]["attention"]
    path.write_text(json.dumps(manifest))
    assert len(TeacherStore.open(tmp_path, expect=small)) == len(TEXTS)


def test_the_attention_is_the_one_asked_for(small: TeacherOptions) -> None:
    for attention in ("eager", "sdpa"):
        teacher = load_teacher(replace(small, attention=attention))
        assert teacher.model.config._attn_implementation == attention


def test_other_weights_under_the_same_name_are_refused(small: TeacherOptions, tmp_path: Path) -> None:
    teacher = shutil.copytree(small.checkpoint, tmp_path / "teacher")
    options = replace(small, checkpoint=str(teacher))
    fill(tmp_path / "store", options, {Role.TEXT: TEXTS})
    plain_xlmr(teacher, seed=1)
    with pytest.raises(ArtifactError, match="its teacher is .* with weights"):
        fill(tmp_path / "store", options, {Role.TEXT: TEXTS})


@pytest.mark.threads
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_do_not_matter(small: TeacherOptions, tmp_path: Path, chunk_size: int) -> None:
    options = replace(small, query_prompt="q: ")
    texts = {Role.QUERY: TEXTS, Role.TEXT: [*TEXTS, *ENGLISH, *TEXTS]}
    fill(tmp_path, options, texts, chunk_size=chunk_size)
    direct = Encoder(small.checkpoint, EncoderOptions(device="cpu"))
    store = TeacherStore.open(tmp_path)
    assert len(store) == 15
    for role, prompt in ((Role.QUERY, "q: "), (Role.TEXT, "")):
        expected = direct.encode_documents(texts[role], prompt=prompt)
        assert np.abs(store.vectors(texts[role], role) - expected).max() <= 1e-6


def many(teacher: str) -> tuple[TeacherOptions, dict[Role, list[str]]]:
    texts = [f"text {number} " + "word " * (number % 17) for number in range(300)]
    options = TeacherOptions(checkpoint=teacher, query_prompt="q: ", dtype="float32", batch_size=4).on("cpu")
    return options, {Role.QUERY: texts[::3], Role.TEXT: texts}


@pytest.mark.threads
@pytest.mark.slow
def test_killed_and_run_again_it_is_byte_identical(small: TeacherOptions, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    options, texts = many(small.checkpoint)
    process = processes.started(partial(fill, chunk_size=10), output, options, texts)
    processes.kill(process, lambda: _rows(output) >= 30)
    there = _rows(output)
    assert 30 <= there < 400
    assert len(TeacherStore.open(output)) == there
    assert fill(output, *many(small.checkpoint), chunk_size=10) == 400 - there
    fill(tmp_path / "whole", *many(small.checkpoint), chunk_size=10)
    assert content(output) == content(tmp_path / "whole")


def _rows(directory: Path) -> int:
    path = directory / "manifest.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else 0


def test_what_a_kill_left_behind_the_rows_does_not_count(small: TeacherOptions, tmp_path: Path) -> None:
    fill(tmp_path, small, {Role.TEXT: TEXTS})
    for name in ("vectors", "keys"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"half a row")
    fill(tmp_path, small, {Role.TEXT: [*TEXTS, "new"]})
    direct = Encoder(small.checkpoint, EncoderOptions(device="cpu")).encode_documents(["new"])
    assert np.abs(TeacherStore.open(tmp_path).vectors(["new"], Role.TEXT) - direct).max() <= 1e-6


def test_an_open_store_does_not_mind_a_writer(small: TeacherOptions, tmp_path: Path) -> None:
    fill(tmp_path, small, {Role.TEXT: TEXTS})
    before = TeacherStore.open(tmp_path)
    expected = before.vectors(TEXTS, Role.TEXT)
    fill(tmp_path, small, {Role.TEXT: ENGLISH})
    assert np.array_equal(before.vectors(TEXTS, Role.TEXT), expected)
    with pytest.raises(DataError, match="nor of 4 others of 5"):
        before.vectors(ENGLISH, Role.TEXT)
    assert np.array_equal(TeacherStore.open(tmp_path).vectors(TEXTS, Role.TEXT), expected)


READER = """
import sys, hashlib
from pathlib import Path
from mimo_plugin.training.teacher_store import Role, TeacherStore
texts = [f"text {n}" for n in range(200)]
for _ in range(5):
    vectors = TeacherStore.open(Path(sys.argv[1])).vectors(texts, Role.TEXT)
print(hashlib.sha256(vectors.tobytes()).hexdigest())
"""


def test_processes_read_together(small: TeacherOptions, tmp_path: Path) -> None:
    fill(tmp_path, small, {Role.TEXT: [f"text {n}" for n in range(300)]})
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert len({reader.communicate()[0] for reader in readers}) == 1
    assert [reader.returncode for reader in readers] == [0, 0]


def test_one_writer(small: TeacherOptions, tmp_path: Path) -> None:
    from mimo_plugin.core.files import one_writer

    fill(tmp_path, small, {Role.TEXT: TEXTS})
    with (
        one_writer(tmp_path),
        pytest.raises(ArtifactError, match=f"is being written by process {os.getpid()} on"),
    ):
        fill(tmp_path, small, {Role.TEXT: TEXTS})
    assert fill(tmp_path, small, {Role.TEXT: TEXTS}) == 0


def test_damage_is_named(small: TeacherOptions, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(ArtifactError, match=r"no such directory, expected a teacher store"):
        TeacherStore.open(store)
    fill(store, small, {Role.TEXT: TEXTS})
    for name in ("vectors", "keys"):
        saved = (store / name).read_bytes()
        (store / name).write_bytes(saved[:-1])
        with pytest.raises(ArtifactError, match=f"{name} has .* bytes, the manifest beside it says"):
            TeacherStore.open(store)
        with pytest.raises(ArtifactError, match=f"{name} has .* bytes, the manifest beside it says"):
            fill(store, small, {Role.TEXT: ["new"]})
        (store / name).write_bytes(saved)
    (store / "manifest.json").write_text('{"format": "mimo-index"}')
    with pytest.raises(ArtifactError, match="not the manifest of a teacher store: format"):
        TeacherStore.open(store)


def test_foreign_places_are_left_alone(small: TeacherOptions, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ArtifactError, match=r"holds something else \(thesis.tex\)"):
        fill(tmp_path, small, {Role.TEXT: TEXTS})
    with pytest.raises(ArtifactError, match="is a file"):
        fill(tmp_path / "thesis.tex", small, {Role.TEXT: TEXTS})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_numbers_that_are_none(
    small: TeacherOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(factor: float) -> object:
        def loaded(checkpoint: str, options: EncoderOptions) -> Encoder:
            import torch

            student = Encoder(checkpoint, options)
            del student.model._modules["2"]
            with torch.no_grad():
                for parameter in student.model.parameters():
                    parameter.mul_(factor)
            return student

        return loaded

    with monkeypatch.context() as patch:
        patch.setattr("mimo_plugin.training.teacher_store.Encoder", scaled(float("nan")))
        with pytest.raises(NotFinite, match="NaN or infinity for the text 'Ein kurzer Satz"):
            fill(tmp_path / "nan", small, {Role.TEXT: TEXTS})
    with monkeypatch.context() as patch:
        patch.setattr("mimo_plugin.training.teacher_store.Encoder", scaled(1e6))
        with pytest.raises(ModelError, match="too large for float16"):
            fill(tmp_path / "large", replace(small, dtype="float16"), {Role.TEXT: TEXTS})
    with pytest.raises(UsageError, match="found 'int8', expected 'float16' or 'float32'"):
        Recipe.read(None, {"teacher": {"dtype": "int8"}})
    with pytest.raises(TypeError, match="read twice"):
        fill(tmp_path / "none", small, {Role.TEXT: iter(TEXTS)})


def test_a_full_disk(small: TeacherOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {Role.TEXT: [f"text {n}" for n in range(60)]}
    real = shutil.disk_usage
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
        with pytest.raises(EnvironmentProblem, match="has 1000 B free and the teacher's vectors of 60 texts"):
            fill(tmp_path, small, texts)
    with (
        no_file_beyond(4000),
        pytest.raises(EnvironmentProblem, match=r"cannot write .*vectors: File too large"),
    ):
        fill(tmp_path, small, texts, chunk_size=20)
    assert len(TeacherStore.open(tmp_path)) == 20
    assert fill(tmp_path, small, texts, chunk_size=20) == 40


@given(st.lists(st.lists(st.binary(max_size=3), unique=True, max_size=8), max_size=6), st.binary(max_size=3))
def test_key_index_is_a_dictionary(additions: list[list[bytes]], absent: bytes) -> None:
    index, rows = KeyIndex(np.empty(0, dtype=KEY)), {}
    for keys in additions:
        # Zeros at the end are what a fixed-width key may end in.
        new = [key for key in dict.fromkeys(key.ljust(16, b"\0") for key in keys) if key not in rows]
        index.append(np.frombuffer(b"".join(new), dtype=KEY))
        rows |= {key: len(rows) + place for place, key in enumerate(new)}
    asked = [*rows, absent.ljust(16, b"\1")]
    found = index.find(np.frombuffer(b"".join(asked), dtype=KEY))
    assert found.tolist() == [rows.get(key, -1) for key in asked]
    rebuilt = KeyIndex(np.frombuffer(b"".join(rows), dtype=KEY))
    assert rebuilt.find(np.frombuffer(b"".join(asked), dtype=KEY)).tolist() == found.tolist()


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), unique=True, max_size=20))
def test_keys_tell_prompt_and_text_apart(pairs: list[tuple[str, str]]) -> None:
    keys = [text_keys(prompt, [text]).tobytes() for prompt, text in pairs]
    assert len(set(keys)) == len(pairs)
    assert text_keys("", []).shape == (0,)
