"""Directories that commands write: atomically, by one writer, with a checked manifest.

`Artifact` is a directory of one `Kind`: an index, vectors, training data, a training run and the like. A
command calls `check_output` (before any work), `held` (one writer), `finished` (nothing to do?), `begin`,
does its work, and calls `seal`. Work that cannot resume calls `building`, then `publish`. Readers call
`read`, or `verify` to check every byte.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mimo_plugin.core.config import field_faults, read_yaml
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, UsageError
from mimo_plugin.core.files import (
    NOTE,
    Held,
    check_place,
    one_writer,
    remove_tree,
    sha256,
    write_text,
    writing,
)

_SEAL = "checksum"


class Record(BaseModel):
    """Validated, immutable data; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SealedRecord(Record):
    """Data that is written with its own checksum, so that any changed byte is detected."""

    def sealed(self, indent: int | None = None) -> str:
        """JSON text with the checksum, on one line or indented."""
        return sealed_text(self.model_dump(mode="json"), indent)


R = TypeVar("R", bound=Record)


def differences(
    mine: BaseModel | Mapping[str, Any], other: BaseModel | Mapping[str, Any], ignoring: Collection[str] = ()
) -> dict[str, str]:
    """Field -> a line with both values, for each field that differs."""
    here, there = (
        one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in (mine, other)
    )
    return {
        name: f"{name} is {here.get(name)!r}, there it is {there.get(name)!r}"
        for name in {**here, **there}
        if name not in ignoring and here.get(name) != there.get(name)
    }


class FileRecord(Record):
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        return cls(bytes=path.stat().st_size, sha256=sha256(path))


def parse_manifest(path: Path, kind: type[R], what: str) -> R:
    """Reads a manifest. A manifest of an earlier version has no checksum and is not checked.

    Args:
        what: its kind, for the message.

    Raises:
        ArtifactError: it cannot be read, is of another kind, or is corrupted.
    """
    advice = "choose another directory, or make it again"
    try:
        content = path.read_bytes()
        data, whole = unseal(content)
        record = kind.model_validate(data)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; see to its permissions") from error
    except ValidationError as error:
        _, problem = next(field_faults(error, kind, data))
        raise ArtifactError(f"{path} is not the manifest of {what}: {problem}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not the manifest of {what}: {error}; {advice}") from error
    if not whole:
        raise ArtifactError(
            f"{path} does not match its checksum: it is corrupted or was edited; make it again"
        )
    return record


def require_files(directory: Path, files: Mapping[str, FileRecord], advice: str) -> None:
    """Raises an ArtifactError if a file is missing, or its size differs from its record.

    Args:
        files: path below the directory -> record.
        advice: end of the message: what is corrupted, and what to do.
    """
    for name, record in files.items():
        file = directory / name
        size = file.stat().st_size if file.is_file() else None
        if size != record.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise ArtifactError(f"{file} {found}, the manifest says {record.bytes} bytes: {advice}")


def require_content(directory: Path, files: Mapping[str, FileRecord], advice: str) -> None:
    """As `require_files`, and also compares the SHA-256 of all files."""
    require_files(directory, files, advice)
    for name, record in files.items():
        if sha256(directory / name) != record.sha256:
            raise ArtifactError(
                f"{directory / name} does not have the SHA-256 that the manifest says: {advice}"
            )


def said_format(path: Path) -> str | None:
    """The `format` of a manifest, even of an invalid one; None if it has none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    said = found.get("format") if isinstance(found, dict) else None
    return said if isinstance(said, str) else None


def sealed_text(data: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON of an object, with its checksum."""
    checksum = hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return json.dumps({**data, _SEAL: checksum}, indent=indent, ensure_ascii=False) + "\n"


def unseal(content: bytes) -> tuple[Any, bool]:
    """The parsed JSON without its checksum, and whether it is unchanged; without a checksum, True.

    Raises:
        ValueError, RecursionError: it is not JSON or not UTF-8.
    """
    data = json.loads(content)
    if not isinstance(data, dict) or data.pop(_SEAL, None) is None:
        return data, True
    return data, content.decode() in (sealed_text(data), sealed_text(data, indent=2))


MANIFEST: Final = "manifest.json"
# Folder of unpublished files, see `Artifact.building`.
BUILDING: Final = ".building"


class Manifest(SealedRecord):
    """The manifest of an artifact. Subclasses add `format` and a description of the files.

    Attributes:
        files: size and SHA-256 by path below the directory.
    """

    files: dict[str, FileRecord]

    def sealed(self, indent: int | None = None) -> str:
        data = self.model_dump(mode="json")
        files = data.pop("files")
        return sealed_text({**data, "files": files}, indent)


M = TypeVar("M", bound=Manifest)


@dataclass(frozen=True)
class Kind(Generic[M]):
    """A kind of directory that a command writes.

    Attributes:
        manifest: class of its manifest.
        formats: valid values of the manifest's `format`.
        noun: for messages, such as "an index".
        command: that makes it, such as "mimo index".
        names: of the files and folders in it, except the manifest and hidden files.
        mark: file or folder that shows that the command began here; None if `names` are enough.
        mark_stays: whether a finished directory keeps the mark.
        option: that names the directory on the command line.
        again: how a user starts over.
    """

    manifest: type[M]
    formats: frozenset[str]
    noun: str
    command: str
    names: re.Pattern[str]
    mark: str | None = None
    mark_is_folder: bool = False
    mark_stays: bool = False
    option: str = "--output"
    again: str = "start over with --no-resume"


class Artifact(Generic[M]):
    """A directory of one kind: absent, empty, begun, or finished. A manifest marks a finished directory.

    Args:
        path: new, empty, or written by the kind's command.
    """

    def __init__(self, path: Path, kind: Kind[M]) -> None:
        self.path = path
        self.kind = kind
        self.manifest = path / MANIFEST
        self._held: Held | None = None

    @property
    def mark(self) -> Path | None:
        """Path of the kind's mark."""
        return self.path / self.kind.mark if self.kind.mark else None

    def check_output(self) -> None:
        """Checks, before any work, that the command may write here.

        Raises:
            ArtifactError: the directory holds something else.
            UsageError: it cannot be written.
        """
        noun = self.kind.noun
        advice = f"{self.kind.option} must name a new or empty directory, or {noun} that this command began"
        # `Path.is_file` raises where a name is too long.
        if os.path.isfile(self.path):  # noqa: PTH113
            raise ArtifactError(f"{self.path} is a file: {advice}")
        check_place(self.manifest)
        names = set()
        if self.path.is_dir():
            names = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}
        foreign = {name for name in names if not self._may_hold(name)}
        begun = self.mark is None or self.mark.exists()
        if MANIFEST in names and said_format(self.manifest) not in self.kind.formats:
            foreign.add(f"{self.manifest} of another kind, or corrupted")
        elif MANIFEST not in names and not begun:
            foreign = names
        if foreign:
            shown = ", ".join(sorted(foreign)[:5])
            raise ArtifactError(f"{self.path} holds something else ({shown}): {advice}")

    def begun_with(self, key: str) -> Mapping[str, Any] | None:
        """The content of a YAML mark that must hold a key; None in a new or empty directory.

        Raises: as `check_output`.
        """
        self.check_output()
        if self.mark is None or not self.mark.exists():
            return None
        try:
            there = read_yaml(self.mark).values
        except UsageError as error:
            raise ArtifactError(f"{error}; choose another --output, or remove {self.path}") from error
        if key not in there:
            raise ArtifactError(
                f"{self.path} holds something else ({self.mark.name} of another command): --output must name "
                f"a new or empty directory, or {self.kind.noun} that this command began"
            )
        return there

    def read(self) -> M:
        """The manifest, checked against the sizes of the files beside it.

        Raises:
            ArtifactError: the directory is of another kind, incomplete or corrupted.
        """
        kind = self.kind
        if not self.path.is_dir():
            raise ArtifactError(
                f"{self.path}: no such directory, expected {kind.noun} made by `{kind.command}`"
            )
        if not self.manifest.is_file():
            raise ArtifactError(
                f"{self.path} has no {MANIFEST}, expected {kind.noun}: run the `{kind.command}` command "
                "again that was to write it"
            )
        manifest = parse_manifest(self.manifest, kind.manifest, kind.noun)
        require_files(self.path, manifest.files, self._damaged)
        return manifest

    def verify(self, *names: str) -> M:
        """As `read`, and also compares the SHA-256 of files.

        Args:
            names: of the files; none means all.
        """
        manifest = self.read()
        files = {name: manifest.files[name] for name in names or manifest.files}
        require_content(self.path, files, self._damaged)
        return manifest

    def finished(self) -> M | None:
        """As `read`; None if nothing is finished here."""
        return self.read() if self.manifest.exists() else None

    def refuse(self, differences: Sequence[str]) -> None:
        """Raises an ArtifactError if the options of this directory differ from the command's."""
        if differences:
            raise ArtifactError(
                f"{self.path} holds {self.kind.noun} made otherwise: {'; '.join(differences)}. Choose "
                f"another {self.kind.option}, give the same options, or {self.kind.again}"
            )

    @contextmanager
    def held(self) -> Iterator[Held]:
        """Makes the directory, locks it for one writer, and removes temporary files that a kill left.

        Raises:
            ArtifactError: another process writes here.
            EnvironmentProblem: the file system refuses, or the directory was removed meanwhile.
        """
        with one_writer(self.path) as held:
            with writing(self.path):
                for leftover in (*self.path.glob(".*.tmp"), *self.path.glob(".*.old")):
                    _remove(leftover)
            if self.manifest.exists() and not self.kind.mark_stays:
                self._remove_mark()
            self._held = held
            try:
                yield held
            except Exception:
                held.require()
                raise
            finally:
                self._held = None
                if not held.lies_there():
                    self._remove_late_files()

    def _remove_late_files(self) -> None:
        """Removes what libraries wrote after the directory was removed: the next run would refuse it."""
        if not any((self.path / name).exists() for name in (MANIFEST, self.kind.mark or MANIFEST, NOTE)):
            with suppress(OSError, EnvironmentProblem):
                self._clear()
                self.path.rmdir()

    def begin(self, content: str = "") -> None:
        """Writes the kind's mark. content: of a mark that is a file."""
        if self.mark is None:
            return
        if self.kind.mark_is_folder:
            with writing(self.mark):
                self.mark.mkdir(exist_ok=True)
        else:
            write_text(self.mark, content)

    @contextmanager
    def building(self) -> Iterator[Path]:
        """Locks the directory as `held` does, and yields a new folder in it to write to.

        Finished files stay unchanged until `publish`. The folder is removed at the end.
        """
        work = self.path / BUILDING
        with self.held():
            with writing(work):
                _remove(work)
                work.mkdir()
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def publish(self, manifest: M) -> None:
        """Replaces the content by that of the `building` folder, the manifest last."""
        try:
            with writing(self.path):
                self._clear()
                for made in list((self.path / BUILDING).iterdir()):
                    made.rename(self.path / made.name)
            self.seal(manifest)
        except BaseException:
            self._clear()
            raise

    def start_over(self) -> None:
        """Removes all files of an earlier command.

        The manifest goes first and the mark last, so that an incomplete directory never looks finished or
        foreign.
        """
        if self.mark is not None and not self.mark.exists() and self.manifest.exists():
            self.begin()
        self._clear()
        self._remove_mark()

    def _clear(self) -> None:
        """Removes the manifest, then the content; the mark stays."""
        self.manifest.unlink(missing_ok=True)
        for entry in list(self.path.iterdir()) if self.path.is_dir() else []:
            if entry != self.mark and self._may_hold(entry.name):
                _remove(entry)

    def seal(self, manifest: M) -> None:
        """Writes the manifest, which marks the directory as finished."""
        if self._held is not None:
            self._held.require()
        write_text(self.manifest, manifest.sealed(indent=2))
        if not self.kind.mark_stays:
            self._remove_mark()

    def _may_hold(self, name: str) -> bool:
        return name in (MANIFEST, self.kind.mark) or self.kind.names.fullmatch(name) is not None

    @property
    def _damaged(self) -> str:
        return f"{self.kind.noun} that is corrupted; {self.kind.again}"

    def _remove_mark(self) -> None:
        if self.mark is None or not self.mark.exists():
            return
        if self.kind.mark_is_folder:
            # Renamed first, so that no command resumes from a half-removed folder.
            discarded = self.mark.with_name(f".{self.mark.name}.old")
            with writing(self.mark):
                self.mark.rename(discarded)
                _remove(discarded)
        else:
            self.mark.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
