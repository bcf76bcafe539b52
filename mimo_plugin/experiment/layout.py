"""Where each part of an experiment lies.

A place is named by all that decides what comes to lie there: a recipe that is changed finds what it still
shares with the old one, and takes nothing for what it is not.

    students/KEY/seed-1/                      a new student, from which all systems start
    warm-ups/KEY/seed-1/                      a run of stage 1, shared by the systems that ask for the same
    systems/NAME-KEY/seed-1/training/         a run of stage 2
    systems/NAME-KEY/seed-1/scores/TEST/      scores.json and run.trec.gz, of one collection
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mimo_plugin.data.identity import collection_identity, files_identity, identity_key
from mimo_plugin.data.manifest import DataManifest
from mimo_plugin.experiment.systems import Experiment, ResolvedSystem
from mimo_plugin.training.fresh_student import PREFIX
from mimo_plugin.training.starting import checkpoint_of

RECIPE = "recipe.yaml"


class Layout:
    """Args:
    data: manifests of the data that the experiment uses, by directory.
    """

    def __init__(self, experiment: Experiment, output: Path, data: Mapping[Path, DataManifest]) -> None:
        self.output = output
        self._experiment = experiment
        self._data = data

    @property
    def recipe(self) -> Path:
        """A copy of the recipe: it marks the directory as an experiment's."""
        return self.output / RECIPE

    @property
    def results(self) -> Path:
        return self.output / "results.json"

    @property
    def tables(self) -> Path:
        return self.output / "results.md"

    def student(self, seed: int) -> Path | None:
        """The new student; None where an existing checkpoint is the student."""
        if not self._experiment.student.checkpoint.startswith(PREFIX):
            return None
        return self.output / "students" / identity_key(self._student) / f"seed-{seed}"

    def warm_up(self, system: ResolvedSystem, seed: int) -> Path:
        return self.output / "warm-ups" / identity_key(self._warm_up(system)) / f"seed-{seed}"

    def training(self, system: ResolvedSystem, seed: int) -> Path:
        return self._system(system, seed) / "training"

    def scores(self, system: ResolvedSystem, seed: int, collection: str) -> Path:
        return self._system(system, seed) / "scores" / collection

    def _system(self, system: ResolvedSystem, seed: int) -> Path:
        start = self._student if system.stage1 is None else self._warm_up(system)
        identity = {
            "start": start,
            "options": system.stage2.identity(),
            "data": self._data[system.table].fingerprint,
            "dev": self._dev,
            "teacher": self._teacher if system.taught else None,
        }
        return self.output / "systems" / f"{system.name}-{identity_key(identity)}" / f"seed-{seed}"

    @cached_property
    def _student(self) -> dict[str, Any]:
        student = self._experiment.recipe.student.identity()
        if not self._experiment.student.checkpoint.startswith(PREFIX):
            return {**student, **_content(self._experiment.student.checkpoint)}
        pairs, table = self._experiment.tokenizer_texts
        return {
            **student,
            "max_length": self._experiment.max_length,
            "texts": self._data[pairs or table].fingerprint,
        }

    def _warm_up(self, system: ResolvedSystem) -> dict[str, Any]:
        if system.stage1 is None or system.pairs is None:
            raise ValueError(f"system {system.name} has no warm-up")
        return {
            "start": self._student,
            "options": system.stage1.identity(),
            "data": self._data[system.pairs].fingerprint,
            "dev": self._dev,
            "teacher": self._teacher,
        }

    @cached_property
    def _dev(self) -> Any:
        return None if self._experiment.dev is None else collection_identity(self._experiment.dev)

    @cached_property
    def _teacher(self) -> dict[str, Any]:
        teacher = self._experiment.recipe.teacher.identity()
        return {**teacher, **_content(self._experiment.teacher.checkpoint)}


def _content(checkpoint: str) -> dict[str, Any]:
    """What a directory holds that is a checkpoint: it may change under its name. Nothing of other names."""
    directory = Path(checkpoint)
    return {"files": files_identity(Path(checkpoint_of(checkpoint)))} if directory.is_dir() else {}
