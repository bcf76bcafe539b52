"""Which texts a student was trained on: hashes beside its weights, so that a collection can be checked."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin import packaged
from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import replacing
from mimo_plugin.manifests import FileRecord

if TYPE_CHECKING:
    import numpy as np

FILE = "training_texts.npz"
# Hashes that are kept, 8 bytes each: all of smaller data, of larger data a sample.
MOST = 1 << 20
_READ_AT_ONCE = 1 << 16
_LARGEST = (1 << 64) - 1


@dataclass(frozen=True)
class SeenTexts:
    """The texts that a student was trained on, as hashes of 64 bits.

    Texts are compared after Unicode's NFKC, without case, and with runs of white space as one space. Large
    data keep their `MOST` smallest hashes, a random sample of the texts; counts are scaled up then.

    Attributes:
        training_data: names of the data.
        hashes: sorted and distinct, uint64 (n,).
        highest: hashes above it were not kept.
    """

    training_data: str
    hashes: "np.ndarray"
    highest: int

    @classmethod
    def open(cls, checkpoint: str | Path) -> "SeenTexts | None":
        """Opens the record of a checkpoint: a directory, a run of `mimo train`, or a hub id.

        Returns:
            None where the checkpoint has none: it was not trained by this package, or by an earlier version.

        Raises:
            ArtifactError: the record is damaged.
        """
        import numpy as np

        path = _find(str(checkpoint))
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                name, hashes, highest = (found[key] for key in ("training_data", "hashes", "highest"))
            if hashes.dtype != np.uint64 or hashes.ndim != 1 or (hashes[1:] <= hashes[:-1]).any():
                raise ValueError("its hashes are not sorted")
            return cls(str(name), hashes, int(highest))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(
                f"{path} is not the record of a student's training texts: {reason}; train the student again, "
                "or delete the file: then nobody can tell what it was trained on"
            ) from error

    @property
    def share(self) -> float:
        """Of the training texts, how many the record holds; 1.0 is all."""
        return (self.highest + 1) / (_LARGEST + 1)

    def count(self, texts: Iterable[str]) -> int:
        """How many of the given texts were trained on; an estimate where `share` is below 1."""
        import numpy as np

        found = total = 0
        for hashes in _hashes(texts):
            found += int(np.isin(hashes, self.hashes).sum())
            total += len(hashes)
        return min(total, round(found / self.share))


def write_seen(
    directory: Path, texts: Iterable[str], *, training_data: str = "", before: SeenTexts | None = None
) -> FileRecord:
    """Writes the record of a student into its directory. Memory is bounded, whatever the data.

    Args:
        texts: that it was trained on, read once; a text may occur several times.
        training_data: name of the data.
        before: record of the checkpoint that training started from, which is added to.
    """
    import numpy as np

    kept, highest, names = np.empty(0, dtype=np.uint64), _LARGEST, [training_data]
    if before is not None:
        kept, highest = before.hashes, before.highest
        names = list(dict.fromkeys([*before.training_data.split(", "), training_data]))
    for hashes in _hashes(texts):
        kept = np.union1d(kept, hashes[hashes <= highest])
        if len(kept) > MOST:
            kept = kept[:MOST]
            highest = int(kept[-1])
    path = directory / FILE
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            training_data=np.array(", ".join(names)),
            hashes=kept,
            highest=np.array(highest, dtype=np.uint64),
        )
    return FileRecord.of(path)


def _hashes(texts: Iterable[str]) -> Iterator["np.ndarray"]:
    """uint64, some thousands at a time."""
    import numpy as np

    stream = iter(texts)
    while read := list(islice(stream, _READ_AT_ONCE)):
        yield np.fromiter(map(_hash, read), dtype=np.uint64, count=len(read))


def _hash(text: str) -> int:
    same = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    digest = hashlib.blake2b(same.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest())


def _find(checkpoint: str) -> Path | None:
    """The record's file; None where there is none."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from mimo_plugin.network import reachable

    directory = Path(checkpoint)
    if directory.is_dir():
        places = (directory / FILE, directory / "model" / FILE)
        return next((place for place in places if place.is_file()), None)
    if checkpoint.startswith(packaged.PREFIX) or directory.is_absolute():
        return None
    offline = constants.HF_HUB_OFFLINE or not reachable([constants.ENDPOINT])
    try:
        return Path(hf_hub_download(checkpoint, FILE, local_files_only=offline))
    except (HFValidationError, HfHubHTTPError, OSError):
        return None
