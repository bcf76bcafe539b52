"""Reading the results of a reproduction."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mimo_plugin.errors import ArtifactError, Problems
from mimo_plugin.manifests import field_problems
from mimo_plugin.report.bias_shapes import LanguageBias
from mimo_plugin.report.geometry_shapes import Geometry
from mimo_plugin.report.shapes import (
    FORMAT,
    FORMAT_VERSION,
    Config,
    Evaluation,
    Provenance,
    Reference,
    Shape,
    Subset,
    System,
)

FILE_NAME = "results.json"
_AGAIN = "make it again with `mimo reproduce`"
# Neither XML nor a terminal can show them: control characters, halves of a pair, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SPACE = "\t\n\r"


class Results(Shape):
    """All of it. raw: the object that it was read from, for those who take plain JSON."""

    config: Config
    subset: Subset | None
    systems: Mapping[str, System]
    evaluation: Evaluation
    language_bias: Mapping[str, LanguageBias]
    geometry: Geometry | None
    reference: tuple[Reference, ...]
    warnings: tuple[str, ...]
    provenance: Provenance
    raw: Mapping[str, Any]


def read_results(path: Path) -> dict[str, Any]:
    """The object in a results file, or in the one of that name in a directory.

    Raises:
        ArtifactError: it is not there, cannot be read, or is no JSON object.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ArtifactError(
            f"{file} cannot be read: {error.strerror}; expected what `mimo reproduce` writes"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} is not JSON: {error}; {_AGAIN}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{file} holds no JSON object, expected a reproduction's results; {_AGAIN}")
    return content


def parse_results(content: Mapping[str, Any]) -> Results:
    """Checks the shape of a results object.

    Names may hold anything: characters that cannot be shown become escapes such as `\\x00`.

    Raises:
        ArtifactError: with everything that is not as it has to be.
    """
    found = content.get("format"), content.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise ArtifactError(
            f"the results have format {found[0]!r}, version {found[1]!r}; expected {FORMAT!r}, version "
            f"{FORMAT_VERSION}: {_AGAIN}"
        )
    clean = _printable(content)
    try:
        return Results.model_validate(clean | {"raw": clean})
    except ValidationError as error:
        problems = Problems(ArtifactError)
        problems.extend(
            f"the results are not as they have to be: {problem}; {_AGAIN}"
            for problem in field_problems(error)
        )
        problems.raise_any()
        raise


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNPRINTABLE.sub(_escaped, value)
    if isinstance(value, Mapping):
        clean = {_printable(str(key)): _printable(part) for key, part in value.items()}
        if len(clean) < len(value):
            raise ArtifactError(
                f"the results have names that differ in characters that cannot be shown: {_AGAIN}"
            )
        return clean
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    return value


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return " " if character in _SPACE else character.encode("unicode_escape").decode("ascii")
