"""A NumPy array of vectors, `NAME.npy`, with its docids in `NAME.docid` and, if known, `NAME.lang`."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mimo_plugin.collections.faults import Faults
from mimo_plugin.collections.jsonlines import read_lines
from mimo_plugin.collections.records import check_id
from mimo_plugin.vectors.shards import VectorBatch

_ROWS = 4096


def read_npy(path: Path, faults: Faults) -> Iterator[VectorBatch]:
    """Reads an array of floats (documents, dimension), mapped from disk, and one docid a line."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # A damaged header is parsed as Python, and fails in as many ways.
        reason = " ".join(str(error).split())
        faults.add(f"{path}: cannot be read ({reason}), expected an array as numpy.save writes it")
        return
    if array.ndim != 2 or array.dtype.kind != "f":
        faults.add(
            f"{path}: {array.dtype} of {array.ndim} axes, expected an array of floats (documents, dimension)"
        )
        return
    beside = path.with_suffix(".docid")
    if not beside.is_file():
        faults.add(f"{path}: {beside.name} is missing beside it, expected one docid a line")
        return
    languages = path.with_suffix(".lang")
    docids = faults.convert(
        read_lines(beside, faults), lambda numbered: check_id(numbered[1], f"{beside}:{numbered[0]}")
    )
    langs = (line for _, line in read_lines(languages, faults)) if languages.is_file() else None
    for start in range(0, len(array), _ROWS):
        vectors = np.asarray(array[start : start + _ROWS], dtype=np.float32)
        names = list(islice(docids, len(vectors)))
        spoken = [""] * len(vectors) if langs is None else list(islice(langs, len(vectors)))
        if len(names) < len(vectors) or len(spoken) < len(vectors):
            short = beside if len(names) < len(vectors) else languages
            faults.add(f"{short}: fewer lines than {path.name} has vectors ({len(array)}), expected one each")
            return
        if not np.isfinite(vectors).all():
            row = start + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            faults.add(f"{path}: vector {row} holds NaN or infinity: encode the document again")
        yield VectorBatch(names, spoken, vectors)
    if next(docids, None) is not None:
        faults.add(f"{beside}: more lines than {path.name} has vectors ({len(array)}), expected one each")
