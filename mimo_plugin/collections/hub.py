"""`hub:OWNER/NAME[@REVISION][/FOLDER][#SPLIT]`: a collection's folder in a dataset repository of the hub."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mimo_plugin.collections.folder import PREFIX as FOLDER_PREFIX
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

    Raises:
        DataError: there is no such repository or folder, or it cannot be had now.
    """
    hub = parse_hub(spec)
    directory = _fetched(hub.repository, hub.revision, hub.folder)
    return f"{FOLDER_PREFIX}{directory}{f'#{hub.split}' if hub.split else ''}"


# The hub is asked once a process: all of one command reads the same revision.
@cache
def _fetched(repository: str, revision: str | None, folder: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    name = HubSpec(repository, revision, folder, None).key
    offline = constants.HF_HUB_OFFLINE or not reachable([constants.ENDPOINT])
    try:
        snapshot = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=f"{folder}/*" if folder else None,
            local_files_only=offline,
        )
    except Exception as error:
        if offline:
            raise DataError(_not_here(name, repository, revision, folder)) from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataError(f"{name}: cannot be fetched from the hub: {reason}") from error
    directory = Path(snapshot) / folder
    if not directory.is_dir():
        if offline:
            raise DataError(_not_here(name, repository, revision, folder))
        raise DataError(
            f"{name}: the repository has no folder {folder}, expected one with corpus.jsonl in it"
        )
    return directory


def _not_here(name: str, repository: str, revision: str | None, folder: str) -> str:
    from huggingface_hub import constants

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub does not answer"
    options = (f" --revision {revision}" if revision else "") + (f" --include '{folder}/*'" if folder else "")
    return (
        f"{name}: not in the local cache, and {why}: fetch it where there is a network (hf download "
        f"--repo-type dataset {repository}{options}) and give its folder as {FOLDER_PREFIX}DIR"
    )
