"""`hub:OWNER/NAME[@REVISION][/FOLDER][#SPLIT]`: a collection's folder in a dataset repository of the hub."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mimo_plugin.collections.folder import PREFIX as FOLDER_PREFIX
from mimo_plugin.collections.folder_mteb import PARTS, find_parts, part_names
from mimo_plugin.collections.named import matching_folders
from mimo_plugin.errors import DataError
from mimo_plugin.network import reachable

PREFIX = "hub:"
FORM = "hub:OWNER/NAME[@REVISION][/FOLDER]"

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_SPEC = re.compile(
    rf"hub:(?P<repository>{_WORD}/{_WORD})(@(?P<revision>{_WORD}))?"
    rf"(/(?P<folder>{_WORD}(/{_WORD})*))?/?(#(?P<split>[^#/]+))?"
)


@dataclass(frozen=True)
class HubSpec:
    """Attributes:
    repository: OWNER/NAME.
    revision: branch, tag or commit; None is the main branch.
    folder: below the repository's top, which is "".
    split: the qrels' split that was asked for, if any.
    """

    repository: str
    revision: str | None
    folder: str
    split: str | None

    @property
    def collection_id(self) -> str:
        """What may stand before the colon of a pooled id."""
        return (self.folder or self.repository).rpartition("/")[2]

    @property
    def key(self) -> str:
        """The spec without its split."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repository}{revision}{'/' if self.folder else ''}{self.folder}"


def parse_hub(spec: str) -> HubSpec:
    """Takes a spec apart.

    Raises:
        DataError: it is none.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise DataError(f"{spec}: expected {FORM}, such as hub:owner/benchmarks/belebele")
    return HubSpec(found["repository"], found["revision"], found["folder"] or "", found["split"])


def folder_spec(spec: str) -> str:
    """The `path:` spec of the folder, which is fetched where it is not in the local cache.

    A folder that the repository does not have may be there by a like name, see `matching_folders`, or be the
    subset of one in MTEB's layout, see `folder_mteb`.

    Raises:
        DataError: there is no such repository or folder, or it cannot be had now.
    """
    hub = parse_hub(spec)
    snapshot, folder = _fetched(hub.repository, hub.revision, hub.folder)
    return f"{FOLDER_PREFIX}{snapshot / folder}{f'#{hub.split}' if hub.split else ''}"


def found_folder(spec: str) -> str:
    """The folder that stands for a spec's, relative to the repository's top: it may have another name there.

    Raises: as `folder_spec`.
    """
    hub = parse_hub(spec)
    return _fetched(hub.repository, hub.revision, hub.folder)[1]


# The hub is asked once a process: all of one command reads the same revision.
@cache
def _fetched(repository: str, revision: str | None, folder: str) -> tuple[Path, str]:
    """The snapshot, and the folder below it that stands for the one asked for, or whose subset it is."""
    from huggingface_hub import HfApi, constants, snapshot_download

    name = HubSpec(repository, revision, folder, None).key
    offline = constants.HF_HUB_OFFLINE or not reachable([constants.ENDPOINT])

    def fetch(patterns: list[str] | None) -> Path:
        return Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=patterns,
                local_files_only=offline,
            )
        )

    try:
        snapshot = fetch([f"{folder}/*"] if folder else None)
        # Of the files of a subset some may be missing, where a hub can be asked.
        if not folder or (snapshot / folder).is_dir() or (offline and _is_there(snapshot, folder)):
            return snapshot, folder
        files = (
            [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*")]
            if offline
            else HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
        )
        found = _alike(files, folder, name)
        if found is not None and not offline:
            fetch(found[1])
    except DataError:
        raise
    except Exception as error:
        if offline:
            raise DataError(_not_here(name, repository, revision, folder)) from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataError(f"{name}: cannot be fetched from the hub: {reason}") from error
    if found is None or not _is_there(snapshot, found[0]):
        if offline:
            raise DataError(_not_here(name, repository, revision, folder))
        raise DataError(
            f"{name}: the repository has no folder {folder}, expected one with corpus.jsonl in it"
        )
    return snapshot, found[0]


def _is_there(snapshot: Path, folder: str) -> bool:
    place = snapshot / folder
    return place.is_dir() or bool(find_parts(place.parent, place.name))


def _alike(files: list[str], folder: str, name: str) -> tuple[str, list[str]] | None:
    """The folder that stands for one that the repository does not have, and patterns of its files.

    Raises:
        DataError: several could.
    """
    parent, _, subset = folder.rpartition("/")
    stems = [f"{parent}/{stem}" if parent else stem for part in PARTS for stem in part_names(subset, part)]
    tables = [file for file in files if any(file.startswith((f"{stem}.", f"{stem}/")) for stem in stems)]
    if tables:
        return folder, tables
    corpora = (file.rpartition("/") for file in files)
    folders = [place for place, _, file in corpora if place and file.startswith("corpus.")]
    found = matching_folders(folders, folder)
    if len(found) > 1:
        raise DataError(
            f"{name}: not there, and {len(found)} folders are alike ({', '.join(found)}), expected "
            "one: name it"
        )
    return (found[0], [f"{found[0]}/*"]) if found else None


def _not_here(name: str, repository: str, revision: str | None, folder: str) -> str:
    from huggingface_hub import constants

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub does not answer"
    options = f" --revision {revision}" if revision else ""
    # At the top a folder may have another name there, or be a subset of several.
    options += f" --include '{folder}/*'" if "/" in folder else ""
    return (
        f"{name}: not in the local cache, and {why}: fetch it where there is a network (hf download "
        f"--repo-type dataset {repository}{options}) and give its folder as {FOLDER_PREFIX}DIR"
    )
