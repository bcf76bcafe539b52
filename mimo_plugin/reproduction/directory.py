"""The output directory of a reproduction: whose it is, and one writer at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mimo_plugin.errors import ArtifactError, EnvironmentProblem, UsageError
from mimo_plugin.files import check_place, write_text
from mimo_plugin.locking import Held, one_writer
from mimo_plugin.training.options import read_yaml

if TYPE_CHECKING:
    from mimo_plugin.benchmarks.schema import BenchmarkConfig

CONFIG, RESULTS, REPORT = "config.yaml", "results.json", "report"
COLLECTIONS, INDEXES, RUNS, GEOMETRY = "collections", "indexes", "runs", "geometry"


def check_output(output: Path, name: str) -> None:
    """Raises an ArtifactError where something else than this benchmark's reproduction lies there."""
    if output.exists() and not output.is_dir():
        raise ArtifactError(f"{output} is a file: --output must name a new or empty directory")
    check_place(output / CONFIG)
    names = sorted(path.name for path in output.iterdir() if path.name[0] != ".") if output.exists() else []
    if not names:
        return
    try:
        there = read_yaml(output / CONFIG)
    except UsageError:
        there = {}
    if "setting" not in there:
        raise ArtifactError(
            f"{output} holds something else ({', '.join(names[:5])}): --output must name a new or empty "
            "directory, or one that this command began"
        )
    if there.get("name") != name:
        raise ArtifactError(
            f"{output} holds {there.get('name')!r}, expected a directory of its own for {name!r}: choose "
            "another --output"
        )


@contextmanager
def held(output: Path, config: "BenchmarkConfig", *, only_looking: bool = False) -> Iterator[Held]:
    """Holds the directory for one writer, writes down the config, removes what a kill has left.

    Args:
        only_looking: the config of what was made here before stays as it is.

    Raises:
        ArtifactError: another process is writing there.
        EnvironmentProblem: the file system refuses, or somebody has removed the directory meanwhile.
    """
    with one_writer(output) as there:
        for place in (output, *(output / name for name in (COLLECTIONS, RUNS, GEOMETRY))):
            for leftover in place.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        if not (only_looking and (output / CONFIG).exists()):
            _write_config(output, config)
        try:
            yield there
        finally:
            # Where somebody removed the directory meanwhile, what was made again would look like another's.
            if output.is_dir() and not (output / CONFIG).exists():
                with suppress(EnvironmentProblem):
                    _write_config(output, config)


def _write_config(output: Path, config: "BenchmarkConfig") -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_text(output / CONFIG, text)
