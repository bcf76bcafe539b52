"""What all manifests that this package writes, and all recipes that it reads, have in common."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import sha256

_SEAL = "checksum"


class Record(BaseModel):
    """Validated data: it cannot be changed, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SealedRecord(Record):
    """Data that is written with a checksum of itself, so that a single changed byte is noticed."""

    def sealed(self, indent: int | None = None) -> str:
        """JSON text, one line or indented."""
        return sealed_text(self.model_dump(mode="json"), indent)


R = TypeVar("R", bound=Record)


class FileRecord(Record):
    """Attributes:
    bytes: size.
    sha256: hexadecimal.
    """

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        return cls(bytes=path.stat().st_size, sha256=sha256(path))


def parse_manifest(path: Path, kind: type[R], what: str) -> R:
    """Reads a manifest. One without a checksum is taken as it is: it was written before there were any.

    Args:
        what: its kind, for the message.

    Raises:
        ArtifactError: it cannot be read, is another one, or not as it was written.
    """
    advice = "choose another directory, or make it again"
    try:
        content = path.read_bytes()
        if not issubclass(kind, SealedRecord):
            return kind.model_validate_json(content)
        data, whole = unseal(content)
        record = kind.model_validate(data)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; see to its permissions") from error
    except ValidationError as error:
        problem = next(field_problems(error))
        raise ArtifactError(f"{path} is not the manifest of {what}: {problem}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not the manifest of {what}: {error}; {advice}") from error
    if not whole:
        raise ArtifactError(
            f"{path} is not as it was written (checksum): it is damaged or was edited; make it again"
        )
    return record


def require_files(directory: Path, files: Mapping[str, FileRecord], advice: str) -> None:
    """Raises an ArtifactError where a file is not there, or has another size than its record says.

    Args:
        files: path below the directory -> record.
        advice: what is damaged then, and what to do.
    """
    for name, record in files.items():
        file = directory / name
        size = file.stat().st_size if file.is_file() else None
        if size != record.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise ArtifactError(f"{file} {found}, the manifest says {record.bytes} bytes: {advice}")


def require_content(directory: Path, files: Mapping[str, FileRecord], advice: str) -> None:
    """As `require_files`, and raises where a file's SHA-256 is another; it reads all of them."""
    require_files(directory, files, advice)
    for name, record in files.items():
        if sha256(directory / name) != record.sha256:
            raise ArtifactError(
                f"{directory / name} is not the file that the manifest names (SHA-256): {advice}"
            )


def said_format(path: Path) -> str | None:
    """What a manifest says that it is of, whether or not it is whole; None where it says nothing."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    said = found.get("format") if isinstance(found, dict) else None
    return said if isinstance(said, str) else None


def sealed_text(data: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON of an object with a checksum of itself."""
    return json.dumps({**data, _SEAL: _checksum(data)}, indent=indent, ensure_ascii=False) + "\n"


def unseal(content: bytes) -> tuple[Any, bool]:
    """JSON without its checksum, and whether not a byte of it has changed; without one nobody can tell.

    Raises:
        ValueError, RecursionError: it is no JSON, or no text.
    """
    data = json.loads(content)
    if not isinstance(data, dict) or data.pop(_SEAL, None) is None:
        return data, True
    return data, content.decode() in (sealed_text(data), sealed_text(data, indent=2))


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def field_problems(error: ValidationError) -> Iterator[str]:
    """Pydantic's complaints, each in one line that begins with the field."""
    for problem in error.errors(include_url=False):
        place = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        plain = problem["type"] in ("missing", "value_error", "json_invalid")
        found = "" if plain else f" (found {_shown(problem['input'])})"
        yield f"{place}: {message}{found}" if place else f"{message}{found}"


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."
