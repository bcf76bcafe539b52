"""The directory of an index while it is built: whose it is, what was begun in it, one writer at a time."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import remove_tree, writing
from mimo_plugin.indexing.manifest import (
    DISCARDED,
    FILES,
    FORMAT,
    MANIFEST,
    WORK,
    IndexManifest,
    Plan,
    read_manifest,
)
from mimo_plugin.locking import one_writer
from mimo_plugin.manifests import said_format
from mimo_plugin.vectors.plan import OF_THE_MACHINE, EncodingPlan
from mimo_plugin.vectors.shards import Shards
from mimo_plugin.vectors.work import OURS, refuse, take_up

_LEFTOVER = re.compile(rf"\.({'|'.join((*FILES, MANIFEST))})\.\d+\.tmp")


class IndexDirectory:
    """An output directory of `mimo index`.

    Args:
        path: new, empty, or one that the command began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / WORK

    def refuse_foreign(self) -> None:
        """Raises an ArtifactError when the directory holds anything that is not this command's."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ArtifactError(
                f"{self.path} is a file: --output must name a new or empty directory, or an index"
            )
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        foreign = names - {*FILES, MANIFEST, WORK} if self._began(names) else names
        if self.work.is_dir():
            inside = {path.name for path in self.work.iterdir()}
            foreign |= {f"{WORK}/{name}" for name in inside if not OURS.fullmatch(name)}
        if foreign:
            shown = ", ".join(sorted(foreign)[:5])
            raise ArtifactError(
                f"{self.path} holds something else ({shown}): --output must name a new or empty directory, "
                "or an index that this command began"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for one writer; the lock goes with the process, however it ends.

        Raises:
            ArtifactError: another process is writing here.
            EnvironmentProblem: the directory cannot be made.
        """
        with one_writer(self.path):
            self._clear_leftovers()
            yield

    def finished(self, plan: Plan) -> IndexManifest | None:
        """The manifest of the finished index that lies here, or None.

        Raises:
            ArtifactError: it was made under another plan, or is damaged.
        """
        if not (self.path / MANIFEST).exists():
            return None
        manifest = read_manifest(self.path)
        refuse(
            plan.differences(manifest.plan, ignoring=OF_THE_MACHINE),
            f"{self.path} holds an index made otherwise",
        )
        self._discard_work()
        return manifest

    def start_over(self) -> None:
        """Removes what an earlier command wrote; the manifest first: from then on this is no index."""
        # It marks the directory as this command's while the manifest is gone.
        self._make_work()
        for name in (MANIFEST, *FILES):
            (self.path / name).unlink(missing_ok=True)
        self._discard_work()

    def begin(self, plan: EncodingPlan) -> Shards:
        """The shards of vectors that are needed to build the index, as far as they are there.

        Raises:
            ArtifactError: what lies here was begun under another plan.
        """
        return take_up(self.work, plan)

    def finish(self, manifest: IndexManifest) -> None:
        """Seals the index with its manifest and removes what was needed only to build it."""
        manifest.write(self.path)
        self._discard_work()

    def _began(self, names: set[str]) -> bool:
        """Whether what lies here is a mimo index or was to become one."""
        if MANIFEST not in names:
            return WORK in names or not names & set(FILES)
        return said_format(self.path / MANIFEST) == FORMAT

    def _clear_leftovers(self) -> None:
        shutil.rmtree(self.path / DISCARDED, ignore_errors=True)
        for path in self.path.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _make_work(self) -> None:
        with writing(self.work):
            self.work.mkdir(exist_ok=True)

    def _discard_work(self) -> None:
        if self.work.exists():
            with writing(self.work):
                self.work.rename(self.path / DISCARDED)
                remove_tree(self.path / DISCARDED)
