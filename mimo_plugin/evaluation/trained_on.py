"""Whether a system was trained on what it is scored on, and which encoder made a run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mimo_plugin.errors import ArtifactError, DataError, EnvironmentProblem
from mimo_plugin.files import sha256, write_text
from mimo_plugin.manifests import FileRecord, SealedRecord, said_format, unseal

if TYPE_CHECKING:
    from mimo_plugin.seen import SeenTexts

RUN_FORMAT: Final = "mimo-run"
# A run of `mimo reproduce` has a record that says more.
_FORMATS = (RUN_FORMAT, "mimo-reproduction-run")
_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class TrainedOn:
    """Attributes:
    documents: how many of the texts an encoder was trained on; an estimate where its record is a sample.
    of: texts that were looked at.
    training_data: names of the data.
    """

    documents: int
    of: int
    training_data: str

    def as_json(self) -> dict[str, Any]:
        share = self.documents / self.of if self.of else 0.0
        return {
            "documents": self.documents,
            "of": self.of,
            "share": share,
            "training_data": self.training_data,
        }

    def warnings(self, name: str, what: str = "documents") -> list[str]:
        if not self.documents:
            return []
        data = f" ({self.training_data})" if self.training_data else ""
        return [
            f"{name} was trained on {self.documents:,} of the {self.of:,} {what} here "
            f"({self.documents / self.of:.1%}){data}: its scores do not compare with those of systems that "
            "were not"
        ]


def trained_on(texts: Iterable[str], seen: "Mapping[str, SeenTexts]") -> dict[str, TrainedOn]:
    """Name -> how many of the texts it was trained on; they are read once."""
    counts = dict.fromkeys(seen, 0)
    total = 0
    stream = iter(texts)
    while some := list(islice(stream, _AT_ONCE)):
        total += len(some)
        for name, one in seen.items():
            counts[name] += one.count(some)
    return {name: TrainedOn(counts[name], total, one.training_data) for name, one in seen.items()}


def open_seen(encoders: Mapping[str, str]) -> "tuple[dict[str, SeenTexts], list[str]]":
    """The records that there are of what encoders were trained on, and what is wrong with others.

    Args:
        encoders: name -> checkpoint.
    """
    from mimo_plugin.seen import SeenTexts

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
    """Beside a run of `mimo search`, as FILE.json.

    Attributes:
        encoder: checkpoint of the query encoder.
        fingerprint: of its weights.
        run: the file.
    """

    format: Literal["mimo-run"] = RUN_FORMAT
    format_version: Literal[1] = 1
    encoder: str
    fingerprint: str
    run: FileRecord


def write_run_record(run: Path, encoder: str, fingerprint: str) -> list[str]:
    """Notes beside a run which encoder made it, where that one may have been trained on what it searched.

    Returns:
        What a user should know, a line each.
    """
    from mimo_plugin import packaged
    from mimo_plugin.seen import SeenTexts

    place = run.with_name(f"{run.name}.json")
    if not run.is_file() or (place.exists() and said_format(place) != RUN_FORMAT):
        return []
    if encoder.startswith(packaged.PREFIX):
        return []
    try:
        # A model on the hub is asked for when the run is evaluated.
        if Path(encoder).is_dir() and SeenTexts.open(encoder) is None:
            return []
        record = RunRecord(encoder=encoder, fingerprint=fingerprint, run=FileRecord.of(run))
        write_text(place, record.sealed(indent=2))
    except (ArtifactError, EnvironmentProblem) as error:
        return [str(error)]
    return []


def encoder_of(run: Path) -> str | None:
    """The checkpoint that made a run, as the record beside it says; None where none says so of this file."""
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


def of_runs(
    files: Mapping[str, Path], pool: Any, specs: Sequence[str], progress: bool | None = None
) -> tuple[dict[str, TrainedOn], list[str]]:
    """What the encoders of runs were trained on, of the documents of a collection; and warnings, a line each.

    Args:
        files: name -> run.
        pool: an ir_datasets dataset of `Doc`s, of these collections.
    """
    encoders = {name: encoder for name, file in files.items() if (encoder := encoder_of(file)) is not None}
    seen, warnings = open_seen(encoders)
    if not seen:
        return {}, warnings
    names = ", ".join(seen)
    if not _at_hand(pool, specs):
        return {}, [
            *warnings,
            f"{names}: not known whether it was trained on documents here: they are not on this machine",
        ]
    try:
        found = trained_on(_texts(pool, progress), seen)
    except DataError as error:
        reason = str(error).splitlines()[0]
        return {}, [*warnings, f"{names}: not known whether it was trained on documents here: {reason}"]
    return found, [
        *warnings,
        *(line for name, one in found.items() for line in one.warnings(f"run {name!r}")),
    ]


def _texts(pool: Any, progress: bool | None) -> Iterator[str]:
    from mimo_plugin.progress import bar

    for doc in bar(pool.docs_iter(), what="comparing with training", unit="documents", enabled=progress):
        yield doc.text


def _at_hand(pool: Any, specs: Sequence[str]) -> bool:
    """Whether the documents are there and need not be fetched."""
    from mimo_plugin.collections import load
    from mimo_plugin.collections.sources import missing_files

    if not pool.has_docs():
        return False
    try:
        return not any(missing_files(load(spec).docs_handler()) for spec in specs)
    except DataError:
        return False
