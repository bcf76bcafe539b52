"""The output directory: everything is made in a hidden folder of it, and moved to its place at the end."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mimo_plugin.data.debian.manifest import FORMAT, MANIFEST, DebianManifest
from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import check_place, remove_tree, writing
from mimo_plugin.locking import one_writer

BUILDING = ".building"
TABLE_FILE, PAIRS, TABLE = "table.jsonl.gz", "pairs", "table"
CONTENT = (TABLE_FILE, PAIRS, TABLE, "dev", "test")


def check_output(directory: Path) -> None:
    """Checks that the directory is new, empty, or what an earlier run of this command left.

    Raises:
        UsageError: it cannot be written to.
        ArtifactError: it holds something else.
    """
    check_place(directory / MANIFEST)
    if not directory.exists():
        return
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    foreign = sorted(names - {MANIFEST, *CONTENT})
    if foreign:
        raise ArtifactError(
            f"{directory} holds something else ({', '.join(foreign[:5])}): --output must name a new or empty "
            "directory, or one that this command wrote"
        )
    # A run that was killed while it put things in their place leaves its folder.
    ours = _is_ours(directory / MANIFEST) if MANIFEST in names else (directory / BUILDING).is_dir()
    if names and not ours:
        raise ArtifactError(
            f"{directory} holds {', '.join(sorted(names))}, not from this command: --output must name a new "
            "or empty directory, or one that this command wrote"
        )


def _is_ours(manifest: Path) -> bool:
    try:
        found = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


@contextmanager
def building(directory: Path) -> Iterator[Path]:
    """Holds the directory for one writer and yields the folder to make everything in; it is gone after."""
    work = directory / BUILDING
    with one_writer(directory):
        with writing(work):
            if work.exists():
                remove_tree(work)
            work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def publish(work: Path, manifest: DebianManifest) -> None:
    """Puts what was made in its place, and the manifest last."""
    directory = work.parent
    with writing(directory):
        # From here until the manifest is written the directory counts as unfinished.
        (directory / MANIFEST).unlink(missing_ok=True)
        try:
            _remove_content(directory)
            for path in work.iterdir():
                path.rename(directory / path.name)
            manifest.write(directory)
        except BaseException:
            _remove_content(directory)
            raise


def _remove_content(directory: Path) -> None:
    for name in CONTENT:
        path = directory / name
        if path.is_dir():
            remove_tree(path)
        path.unlink(missing_ok=True)
