"""The training texts of a student, and their overlap with a collection."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.collections.records import usual_language
from mimo_plugin.core.artifact import FileRecord, SealedRecord, said_format, unseal
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import (
    ArtifactError,
    DataError,
    EnvironmentProblem,
    Problems,
    UsageError,
    near,
)
from mimo_plugin.core.files import replacing, sha256, write_text
from mimo_plugin.encoder import packaged
from mimo_plugin.evaluation.options import split_names
from mimo_plugin.evaluation.results import TrainedOnResult

FILE = "training_texts.npz"
# Largest number of hashes, 8 bytes each; larger data are sampled.
MOST = 1 << 20
_READ_AT_ONCE = 1 << 16
_LARGEST = (1 << 64) - 1


@dataclass(frozen=True)
class SeenTexts:
    """The training texts of a student, as hashes of 64 bits.

    Texts are compared after Unicode's NFKC, without case, and with runs of white space as one space. Of large
    data, the `MOST` smallest hashes are kept, a random sample of the texts; counts are then scaled up.

    Attributes:
        training_data: names of the data.
        hashes: sorted and distinct, uint64 (n,).
        highest: hashes above it were not kept.
        languages: of the texts, sorted; empty if not known, as in records of earlier versions.
    """

    training_data: str
    hashes: NDArray[np.uint64]
    highest: int
    languages: tuple[str, ...] = ()

    @classmethod
    def open(cls, checkpoint: str | Path) -> "SeenTexts | None":
        """Opens the record of a checkpoint: a directory, a run of `mimo train`, or a hub id.

        Returns:
            None if the checkpoint has no record: it was trained elsewhere, or by an earlier version.

        Raises:
            ArtifactError: the record is corrupted.
        """
        path = _find(str(checkpoint))
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                name, hashes, highest = (found[key] for key in ("training_data", "hashes", "highest"))
                languages = tuple(found["languages"].tolist()) if "languages" in found else ()
            if hashes.dtype != np.uint64 or hashes.ndim != 1 or (hashes[1:] <= hashes[:-1]).any():
                raise ValueError("its hashes are not sorted")
            return cls(str(name), hashes, int(highest), languages)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(
                f"{path} is not the record of a student's training texts: {reason}; train the student again, "
                "or delete the file: its training texts are then unknown"
            ) from error

    @property
    def share(self) -> float:
        """The share of the training texts in the record; 1.0 is all."""
        return (self.highest + 1) / (_LARGEST + 1)

    def count(self, texts: Iterable[str]) -> int:
        """How many of the given texts were trained on; an estimate if `share` is below 1."""
        found = total = 0
        for hashes in _hashes(texts):
            found += int(np.isin(hashes, self.hashes).sum())
            total += len(hashes)
        return min(total, round(found / self.share))


def write_seen(
    directory: Path,
    texts: Iterable[str],
    *,
    training_data: str = "",
    languages: Iterable[str] = (),
    before: SeenTexts | None = None,
) -> FileRecord:
    """Writes the record of a student into its directory, in bounded memory.

    Args:
        texts: training texts, read once; a text may occur several times.
        training_data: name of the data.
        languages: of the texts.
        before: record of the checkpoint that training started from; it is extended. If it does not know its
            languages, the new record does not, either.
    """
    kept, highest, names = np.empty(0, dtype=np.uint64), _LARGEST, [training_data]
    known = set(languages)
    if before is not None:
        known = known.union(before.languages) if before.languages else set()
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
            languages=np.array(sorted(known), dtype=np.str_),
        )
    return FileRecord.of(path)


def _hashes(texts: Iterable[str]) -> Iterator[NDArray[np.uint64]]:
    """Batches of uint64."""
    stream = iter(texts)
    while read := list(islice(stream, _READ_AT_ONCE)):
        yield np.fromiter(map(_hash, read), dtype=np.uint64, count=len(read))


def _hash(text: str) -> int:
    same = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    digest = hashlib.blake2b(same.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest())


def _find(checkpoint: str) -> Path | None:
    """The file of a checkpoint's record, if there is one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from mimo_plugin.core.environment import hub_problem

    directory = Path(checkpoint)
    if directory.is_dir():
        places = (directory / FILE, directory / "model" / FILE)
        return next((place for place in places if place.is_file()), None)
    if checkpoint.startswith(packaged.PREFIX) or directory.is_absolute():
        return None
    offline = hub_problem() is not None
    try:
        return Path(hf_hub_download(checkpoint, FILE, local_files_only=offline))
    except (HFValidationError, HfHubHTTPError, OSError):
        return None


RUN_FORMAT: Final = "mimo-run"
# A run of `mimo reproduce` has a record with more fields.
_FORMATS = (RUN_FORMAT, "mimo-reproduction-run")
_AT_ONCE = 1 << 14


def trained_on(texts: Iterable[str], seen: Mapping[str, SeenTexts]) -> dict[str, TrainedOnResult]:
    """Name -> how many of the texts it was trained on. The texts are read once."""
    counts = dict.fromkeys(seen, 0)
    total = 0
    stream = iter(texts)
    while some := list(islice(stream, _AT_ONCE)):
        total += len(some)
        for name, one in seen.items():
            counts[name] += one.count(some)
    return {
        name: TrainedOnResult(
            documents=counts[name],
            of=total,
            share=counts[name] / total if total else 0.0,
            training_data=one.training_data,
        )
        for name, one in seen.items()
    }


def trained_on_warnings(found: Mapping[str, TrainedOnResult], what: str = "documents") -> list[str]:
    """A line for each encoder that was trained on any of the texts. what: kind of the texts."""
    return [
        f"{name} was trained on {one.documents:,} of the {one.of:,} {what} here ({one.share:.1%})"
        f"{f' ({one.training_data})' if one.training_data else ''}: its scores do not compare with those of "
        "systems that were not"
        for name, one in found.items()
        if one.documents
    ]


def open_seen(encoders: Mapping[str, str]) -> tuple[dict[str, SeenTexts], list[str]]:
    """Opens the records of encoders' training texts; a corrupted record becomes a warning.

    Args:
        encoders: name -> checkpoint.
    """
    found, warnings = {}, []
    for name, checkpoint in encoders.items():
        try:
            seen = SeenTexts.open(checkpoint)
        except ArtifactError as error:
            warnings.append(f"{name}: not known whether it was trained on documents here: {error}")
            continue
        if seen is not None:
            found[name] = seen
    return found, warnings


class RunRecord(SealedRecord):
    """The record beside a run of `mimo search`, FILE.json.

    Attributes:
        encoder: checkpoint of the query encoder.
        fingerprint: of its weights.
    """

    format: Literal["mimo-run"] = RUN_FORMAT
    format_version: Literal[1] = 1
    encoder: str
    fingerprint: str
    run: FileRecord


def write_run_record(run: Path, encoder: str, fingerprint: str) -> list[str]:
    """Records the encoder of a run beside it, if it may have been trained on the collection.

    Returns:
        Warnings, a line each.
    """
    place = run.with_name(f"{run.name}.json")
    if not run.is_file() or (place.exists() and said_format(place) != RUN_FORMAT):
        return []
    if encoder.startswith(packaged.PREFIX):
        return []
    try:
        # The record of a model on the hub is looked up when the run is evaluated.
        if Path(encoder).is_dir() and SeenTexts.open(encoder) is None:
            return []
        record = RunRecord(encoder=encoder, fingerprint=fingerprint, run=FileRecord.of(run))
        write_text(place, record.sealed(indent=2))
    except (ArtifactError, EnvironmentProblem) as error:
        return [str(error)]
    return []


def encoder_of(run: Path) -> str | None:
    """The checkpoint that made a run, if a record beside it matches the file."""
    stem = run.name.removesuffix(".gz").removesuffix(".trec")
    for place in (run.with_name(f"{run.name}.json"), run.with_name(f"{stem}.json")):
        if said_format(place) not in _FORMATS:
            continue
        try:
            record, whole = unseal(place.read_bytes())
            written = record["run"]["bytes"], record["run"]["sha256"]
            encoder = record["encoder"]
            if whole and isinstance(encoder, str) and written == (run.stat().st_size, sha256(run)):
                return encoder
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def parse_seen_languages(
    given: str | Sequence[str] | Mapping[str, Iterable[str]], names: Sequence[str]
) -> dict[str, frozenset[str]]:
    """Run -> languages that its encoder was trained on, as given.

    Args:
        given: `"en,de"` of every run, `"NAME=en,de"`, or several such; or run -> languages.
        names: of the runs.

    Raises:
        UsageError: with every name that no run has.
    """
    if isinstance(given, Mapping):
        found = {name: set(languages) for name, languages in given.items()}
    else:
        found = {}
        for one in [given] if isinstance(given, str) else given:
            name, equals, languages = one.rpartition("=")
            for run in [name] if equals else names:
                found.setdefault(run, set()).update(split_names(languages))
    with Problems(UsageError) as problems:
        for name in (name for name in found if name not in names):
            problems.add(
                f"seen languages of {name!r}{near(name, names)}; expected one of the runs {', '.join(names)}"
            )
    return {name: frozenset(map(usual_language, languages)) for name, languages in found.items()}


def apart(
    run: str, languages: Sequence[str], unseen: Mapping[str, tuple[str, ...]]
) -> dict[str, Sequence[str]]:
    """The languages that a run's encoder was trained on, under "seen", and the others, under "unseen".

    Where a run's training is not known, they are those of the other runs, if these agree. Empty if all runs
    have seen all languages, or there is one.

    Args:
        unseen: run -> languages that its encoder was not trained on, where known.
    """
    splits = set(unseen.values())
    own = unseen.get(run, next(iter(splits)) if len(splits) == 1 else None)
    if own is None or not any(splits) or len(languages) < 2:
        return {}
    return {"seen": [language for language in languages if language not in own], "unseen": own}


def of_runs(
    files: Mapping[str, Path], pool: Any, specs: Sequence[str], progress: bool | None = None
) -> tuple[dict[str, TrainedOnResult], dict[str, tuple[str, ...]], list[str]]:
    """What the encoders of runs were trained on: documents of a collection, languages; and warnings.

    Args:
        files: name -> run.
        pool: an ir_datasets dataset of the collections `specs`, or of judgments alone.
    """
    encoders = {name: encoder for name, file in files.items() if (encoder := encoder_of(file)) is not None}
    seen, warnings = open_seen(encoders)
    languages = {name: one.languages for name, one in seen.items() if one.languages}
    if not seen:
        return {}, languages, warnings
    try:
        if not _at_hand(pool, specs):
            raise DataError("they are not on this machine")
        docs = bar(pool.docs_iter(), what="comparing with training", unit="documents", enabled=progress)
        found = trained_on((doc.default_text() for doc in docs), seen)
    except DataError as error:
        reason = str(error).splitlines()[0]
        names = ", ".join(seen)
        warnings = [*warnings, f"{names}: not known whether it was trained on documents here: {reason}"]
        return {}, languages, warnings
    warnings += trained_on_warnings({f"run {name!r}": one for name, one in found.items()})
    return found, languages, warnings


def _at_hand(pool: Any, specs: Sequence[str]) -> bool:
    """Whether the documents are on this machine."""
    from mimo_plugin.collections.loading import open_collection
    from mimo_plugin.collections.reading import missing_files

    if not pool.has_docs():
        return False
    handlers = [open_collection(spec).docs_handler() for spec in specs] or [pool.docs_handler()]
    return not any(map(missing_files, handlers))
