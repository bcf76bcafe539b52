"""Fills a teacher store: the teacher encodes each distinct missing text once."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from mimo_plugin.core.environment import bar, installed_versions
from mimo_plugin.core.errors import EnvironmentProblem, ModelError
from mimo_plugin.core.files import size_text
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.training.models import TeacherOptions
from mimo_plugin.training.teacher_store import (
    KEY,
    VECTORS,
    Identity,
    KeyIndex,
    Role,
    StoreDirectory,
    StoreManifest,
    load_teacher,
    text_keys,
)

# Texts read, hashed and looked up at a time.
_READ_AT_ONCE = 4096
# Missing keys collected before repeated ones are removed.
_KEYS_AT_ONCE = 1 << 21

Texts = Mapping[Role, Iterable[str]]


def fill(
    path: Path,
    options: TeacherOptions,
    texts: Texts,
    *,
    chunk_size: int = 8192,
    progress: bool | None = None,
) -> int:
    """Adds the teacher's vectors of all missing texts to a store.

    When killed, it loses at most one chunk per prompt. Another call with the same texts makes the same chunks
    and, on the same machine, the same bytes. The teacher is loaded only if texts are missing. Memory holds
    one chunk's texts and vectors, and 24 bytes for each text in the store.

    Args:
        path: new, empty, or a store.
        texts: texts by role; each iterable is read twice in the same order and may repeat texts.
        chunk_size: texts encoded and written at a time.
        progress: see `environment.bar`.

    Returns:
        Number of distinct texts that were encoded.

    Raises:
        ArtifactError: the directory holds something else or other vectors, or another process writes to it.
        EnvironmentProblem: too little space, or the file system refuses.
        ModelError: the teacher cannot be loaded, or gives NaN or infinity.
    """
    if any(isinstance(some, Iterator) for some in texts.values()):
        raise TypeError("texts are read twice: a list, a dataset's column, ... was expected, not an iterator")
    directory = StoreDirectory(path)
    directory.check_output()
    with directory.held():
        manifest, teacher = directory.finished(), None
        if manifest is None:
            teacher = load_teacher(options)
            versions = installed_versions(["sentence-transformers", "torch", "transformers"])
            identity = Identity.of(teacher, options)
            manifest = StoreManifest(identity=identity, rows=0, keys_crc32=0, versions=versions)
            directory.seal(manifest)
        else:
            teacher = directory.require(manifest.identity, options)
        index = KeyIndex(directory.keys(manifest))
        total = _count_missing(index, manifest.identity, texts)
        if not total:
            return 0
        teacher = teacher or directory.teacher(manifest.identity, options)
        _require_space(path, manifest, total)
        with bar(total=total, what="teacher", unit="texts", enabled=progress) as counter:
            for prompt, keys, chunk in _missing_chunks(index, manifest.identity, texts, chunk_size):
                vectors = _encode(teacher, chunk, prompt, manifest, counter.update)
                manifest = directory.append(manifest, keys, vectors)
                index.append(keys)
    return total


def _reads(identity: Identity, texts: Texts) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Yields (prompt, keys, texts) in blocks."""
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
    """Yields chunks of (prompt, keys, distinct texts); the caller appends each to the index at once.

    A resumed run makes the same chunks as an uninterrupted one.
    """
    waiting: dict[str, dict[bytes, str]] = {}
    for prompt, keys, read in _reads(identity, texts):
        chunk = waiting.setdefault(prompt, {})
        for place in np.flatnonzero(index.find(keys) < 0):
            # A slice, since numpy strips zero bytes from the end of an element.
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


def _require_space(path: Path, manifest: StoreManifest, rows: int) -> None:
    types = manifest.row_types()
    needed = rows * (types[VECTORS].itemsize + KEY.itemsize)
    free = shutil.disk_usage(path).free
    if free < needed:
        raise EnvironmentProblem(
            f"{path} has {size_text(free)} free and the teacher's vectors of {rows} texts need "
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
        stored = vectors.astype(manifest.row_types()[VECTORS].base)
    if not np.isfinite(stored).all():
        raise ModelError(f"{teacher.name} gives numbers too large for float16: store its vectors in float32")
    return stored
