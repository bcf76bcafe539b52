"""The output directory of `mimo encode`: whose it is, whether it is finished, one writer at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import check_place
from mimo_plugin.locking import one_writer
from mimo_plugin.manifests import said_format
from mimo_plugin.vectors.manifest import FORMAT, MANIFEST, VectorsManifest, read_manifest
from mimo_plugin.vectors.plan import OF_THE_MACHINE, EncodingPlan
from mimo_plugin.vectors.shards import Shards, languages_of
from mimo_plugin.vectors.work import OURS, PLAN, clear, refuse


class VectorsDirectory:
    """Args:
    path: new, empty, or one that the command began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse_foreign(self) -> None:
        """Checks that the directory holds nothing that is not this command's.

        Raises:
            ArtifactError: it does.
            UsageError: it cannot be written to.
        """
        check_place(self.path / MANIFEST)
        if not self.path.exists():
            return
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        foreign = {name for name in names if name != MANIFEST and not OURS.fullmatch(name)}
        if MANIFEST in names and not self._is_ours():
            foreign.add(f"a {MANIFEST} of another kind")
        elif names and MANIFEST not in names and PLAN not in names:
            foreign |= names
        if foreign:
            shown = ", ".join(sorted(foreign)[:5])
            raise ArtifactError(
                f"{self.path} holds something else ({shown}): --output must name a new or empty directory, "
                "or vectors that this command began"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for one writer; the lock goes with the process, however it ends.

        Raises:
            ArtifactError: another process is writing here.
            EnvironmentProblem: the directory cannot be made.
        """
        with one_writer(self.path):
            for path in self.path.glob(".*.tmp"):
                path.unlink(missing_ok=True)
            yield

    def finished(self, plan: EncodingPlan) -> VectorsManifest | None:
        """The manifest of the finished vectors that lie here, or None.

        Raises:
            ArtifactError: they were made under another plan, or are damaged.
        """
        if not (self.path / MANIFEST).exists():
            return None
        manifest = read_manifest(self.path)
        refuse(
            plan.differences(manifest.plan, ignoring=OF_THE_MACHINE),
            f"{self.path} holds vectors made otherwise",
        )
        (self.path / PLAN).unlink(missing_ok=True)
        return manifest

    def start_over(self) -> None:
        """Removes what an earlier command wrote; the manifest gives way to the plan, then the rest goes."""
        if (self.path / MANIFEST).exists():
            (self.path / MANIFEST).replace(self.path / PLAN)
        clear(self.path)

    def finish(self, plan: EncodingPlan, shards: Shards) -> VectorsManifest:
        """Seals the vectors with their manifest."""
        records = [shards.record(shard) for shard in shards.numbers]
        empty = [record.empty for record in records]
        manifest = VectorsManifest(
            plan=plan,
            languages=languages_of(iter(records)),
            empty_documents=None if None in empty else sum(count or 0 for count in empty),
            files={
                shards.path(shard).name: record.file
                for shard, record in zip(shards.numbers, records, strict=True)
            },
        )
        manifest.write(self.path)
        (self.path / PLAN).unlink(missing_ok=True)
        return manifest

    def _is_ours(self) -> bool:
        return said_format(self.path / MANIFEST) == FORMAT
