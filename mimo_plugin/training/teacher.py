"""Runs the teacher once over every distinct text that the store does not have."""

import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from mimo_plugin.core.artifact import one_writer
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, ModelError
from mimo_plugin.core.files import size_text, writing
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.training.teacher_store import (
    KEY,
    KEYS,
    MANIFEST,
    SUMS,
    VECTORS,
    Identity,
    KeyIndex,
    Role,
    StoreManifest,
    TeacherOptions,
    read_keys,
    read_manifest,
    require_same,
    require_teacher,
    require_whole,
    row_sums,
    text_keys,
    vector_type,
)

# Texts that are read, hashed and looked up at a time.
_READ_AT_ONCE = 4096
# New keys are made distinct whenever so many came together.
_KEYS_AT_ONCE = 1 << 21

Texts = Mapping[Role, Iterable[str]]


@dataclass(frozen=True)
class Filled:
    """Attributes:
    manifest: of the store as it is now.
    computed: distinct texts that the teacher was run on now.
    """

    manifest: StoreManifest
    computed: int


def fill(
    directory: Path,
    options: TeacherOptions,
    texts: Texts,
    *,
    chunk_size: int = 8192,
    progress: bool | None = None,
) -> Filled:
    """Makes sure that a store has the teacher's vector of every text.

    Killed at any moment it loses at most one chunk a prompt; run again on the same texts it makes the same
    chunks and, on the same machine, the same bytes. The teacher is loaded only where something is missing.
    Memory holds a chunk's texts and vectors, and 24 bytes for each text in the store.

    Args:
        directory: new, empty, or a store.
        texts: texts by role, each iterable read twice, in the same order; texts may occur several times.
        chunk_size: texts encoded and written at a time.
        progress: see `progress.bar`.

    Raises:
        ArtifactError: the directory is something else, holds other vectors, or another process writes it.
        EnvironmentProblem: no space, or the file system refuses.
        ModelError: the teacher cannot be loaded, or gives NaN or infinity.
    """
    if any(isinstance(some, Iterator) for some in texts.values()):
        raise TypeError("texts are read twice: a list, a dataset's column, ... was expected, not an iterator")
    _refuse_foreign(directory)
    with one_writer(directory):
        if (directory / MANIFEST).is_file():
            manifest = read_manifest(directory)
            require_whole(directory, manifest)
            teacher = require_same(directory, manifest.identity, options)
        else:
            teacher = options.load()
            manifest = _begin(directory, Identity.of(teacher, options))
        index = KeyIndex(read_keys(directory, manifest))
        total = _count_missing(index, manifest.identity, texts)
        if not total:
            return Filled(manifest, computed=0)
        if teacher is None:
            teacher = options.like(manifest.identity).load()
            require_teacher(directory, manifest.identity, teacher, options)
        _require_space(directory, manifest, total)
        with bar(total=total, what="teacher", unit="texts", enabled=progress) as counter:
            for prompt, keys, chunk in _missing_chunks(index, manifest.identity, texts, chunk_size):
                vectors = _encode(teacher, chunk, prompt, manifest, counter.update)
                manifest = _append(directory, manifest, keys, vectors)
                index.append(keys)
    return Filled(manifest, computed=total)


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ArtifactError(
            f"{directory} is a file: a teacher store is a directory, new, empty or begun before"
        )
    if directory.is_dir() and not (directory / MANIFEST).is_file():
        foreign = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
        if foreign:
            raise ArtifactError(
                f"{directory} holds something else ({', '.join(foreign[:5])}): a teacher store is a new or "
                "empty directory, or one that was begun before"
            )


def _begin(directory: Path, identity: Identity) -> StoreManifest:
    libraries = ("sentence-transformers", "torch", "transformers")
    versions = {name: version(name) for name in libraries}
    manifest = StoreManifest(identity=identity, rows=0, keys_crc32=0, versions=versions)
    manifest.write(directory)
    return manifest


def _reads(identity: Identity, texts: Texts) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """(prompt, keys, texts), some thousands at a time."""
    for role, some in texts.items():
        prompt, stream = identity.prompt(role), iter(some)
        while read := list(islice(stream, _READ_AT_ONCE)):
            yield prompt, text_keys(prompt, read), read


def _count_missing(index: KeyIndex, identity: Identity, texts: Texts) -> int:
    distinct, found, pending = np.empty(0, dtype=KEY), [], 0
    for _, keys, _ in _reads(identity, texts):
        found.append(keys[index.find(keys) < 0])
        pending += len(found[-1])
        if pending >= _KEYS_AT_ONCE:
            distinct, found, pending = np.unique(np.concatenate([distinct, *found])), [], 0
    return len(np.unique(np.concatenate([distinct, *found])))


def _missing_chunks(
    index: KeyIndex, identity: Identity, texts: Texts, size: int
) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """(prompt, keys, distinct texts) in chunks; the index must have a chunk before the next one is asked for.

    Which texts make a chunk depends on the texts before it alone, not on what was there when it began.
    """
    waiting: dict[str, dict[bytes, str]] = {}
    for prompt, keys, read in _reads(identity, texts):
        chunk = waiting.setdefault(prompt, {})
        for place in np.flatnonzero(index.find(keys) < 0):
            # Not the array's own element: numpy leaves out zeros at the end.
            chunk.setdefault(keys[place : place + 1].tobytes(), read[place])
        while len(chunk) >= size:
            first = {key: chunk[key] for key in islice(chunk, size)}
            waiting[prompt] = chunk = dict(islice(chunk.items(), size, None))
            yield prompt, _array(first), list(first.values())
    for prompt, chunk in waiting.items():
        if chunk:
            yield prompt, _array(chunk), list(chunk.values())


def _array(keys: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), dtype=KEY)


def _require_space(directory: Path, manifest: StoreManifest, rows: int) -> None:
    needed = rows * (vector_type(manifest).itemsize * manifest.identity.dimension + KEY.itemsize)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise EnvironmentProblem(
            f"{directory} has {size_text(free)} free and the teacher's vectors of {rows} texts need "
            f"{size_text(needed)}: make room, choose another place, or store float16"
        )


def _encode(
    teacher: Encoder,
    texts: list[str],
    prompt: str,
    manifest: StoreManifest,
    advance: Callable[[int], object],
) -> np.ndarray:
    try:
        vectors = teacher.encode_documents(texts, prompt=prompt, advance=advance)
    except NotFinite as error:
        raise NotFinite(error.position, error.name, f"the text {texts[error.position][:60]!r}") from None
    with np.errstate(over="ignore"):
        stored = vectors.astype(vector_type(manifest))
    if not np.isfinite(stored).all():
        raise ModelError(f"{teacher.name} gives numbers too large for float16: store its vectors in float32")
    return stored


def _append(directory: Path, manifest: StoreManifest, keys: np.ndarray, vectors: np.ndarray) -> StoreManifest:
    """Writes rows behind those that count, then has them count."""
    checked = manifest.keys_crc32 is not None
    files = {VECTORS: vectors, KEYS: keys} | ({SUMS: row_sums(vectors)} if checked else {})
    for name, array in files.items():
        path = directory / name
        width = array.nbytes // len(array)
        with writing(path), path.open("r+b" if path.exists() else "x+b") as file:
            file.truncate(manifest.rows * width)
            file.seek(0, 2)
            file.write(array.tobytes())
            file.flush()
            os.fsync(file.fileno())
    crc32 = None if manifest.keys_crc32 is None else zlib.crc32(keys.tobytes(), manifest.keys_crc32)
    manifest = manifest.model_copy(update={"rows": manifest.rows + len(keys), "keys_crc32": crc32})
    manifest.write(directory)
    return manifest
