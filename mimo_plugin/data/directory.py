"""The output directory of a `mimo data` command: whose it is, whether it is finished, one writer only."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mimo_plugin.data.manifest import MANIFEST, DataManifest, Format, read_manifest
from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import check_place
from mimo_plugin.locking import one_writer
from mimo_plugin.manifests import said_format

# Ends what is not yet in its place.
UNFINISHED = ".tmp"
_OURS = re.compile(
    rf"(pairs|rows)-\d{{5}}\.parquet({re.escape(UNFINISHED)})?|[a-z0-9.]+{re.escape(UNFINISHED)}"
)


def finished(
    directory: Path,
    data_format: Format,
    *,
    anchor: str,
    parameters: Mapping[str, Any],
    source: Mapping[str, Any],
    overwrite: bool = False,
) -> DataManifest | None:
    """Looks at an output directory before any work is done for it.

    Returns:
        The manifest of what lies there, if it was made from the same parameters and sources; None where the
        work is to be done.

    Raises:
        ArtifactError: it holds something else, and `overwrite` is false or it is none of `mimo data`.
        UsageError: it cannot be written to.
    """
    check_output(directory)
    if overwrite or not (directory / MANIFEST).exists():
        return None
    manifest = read_manifest(directory, data_format)
    if not manifest.made_from(anchor, parameters, source):
        raise ArtifactError(
            f"{directory} holds {data_format.noun} made otherwise: "
            f"{_differences(manifest, anchor, parameters, source)}. Choose another --output, give the same "
            "options, or replace it with --overwrite"
        )
    return manifest


def check_output(directory: Path) -> None:
    """Checks that data can be written to a directory, new, empty or written by `mimo data` before.

    Raises:
        ArtifactError: it holds files that are not of `mimo data`.
        UsageError: it cannot be written to.
    """
    check_place(directory / MANIFEST)
    if not directory.exists():
        return
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    foreign = sorted(name for name in names if name != MANIFEST and not _OURS.fullmatch(name))
    if foreign or (MANIFEST in names and said_format(directory / MANIFEST) not in set(Format)):
        shown = ", ".join(foreign[:5]) or f"a {MANIFEST} of another kind"
        raise ArtifactError(
            f"{directory} holds something else ({shown}): --output must name a new or empty directory, or "
            "one that the command wrote"
        )


@contextmanager
def one_writer_of(directory: Path) -> Iterator[None]:
    """Makes the directory, holds it for one writer, and removes what is unfinished, before and after.

    Raises:
        ArtifactError: another process is writing here.
        EnvironmentProblem: the directory cannot be made.
    """
    with one_writer(directory):
        _remove_unfinished(directory)
        try:
            yield
        finally:
            _remove_unfinished(directory)


def _remove_unfinished(directory: Path) -> None:
    for path in directory.glob(f"*{UNFINISHED}"):
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _differences(
    manifest: DataManifest, anchor: str, parameters: Mapping[str, Any], source: Mapping[str, Any]
) -> str:
    there = {"anchor": manifest.anchor, **manifest.parameters}
    here = {"anchor": anchor, **parameters}
    found = [
        f"{name} is {here.get(name)!r}, there it is {there.get(name)!r}"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    # Sources can be long lists of files.
    names = [name for name in {**manifest.source, **source} if manifest.source.get(name) != source.get(name)]
    if names:
        found.append(f"its {' and '.join(names)} are others")
    return "; ".join(found)
