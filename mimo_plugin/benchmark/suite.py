"""Several benchmarks with the same systems; benchmarks without data are reported and skipped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mimo_plugin.benchmark.config import BenchmarkConfig
from mimo_plugin.benchmark.loading import load_config
from mimo_plugin.benchmark.parts import check_collections
from mimo_plugin.benchmark.reproduce import Say, check_output, plan, reproduce
from mimo_plugin.benchmark.settings import ReproduceOptions
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import write_text
from mimo_plugin.core.table import Table, in_bold, number, words
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.options import Setting
from mimo_plugin.evaluation.results import BenchmarkResults

# `paper` holds the benchmarks that the MIMO paper reports.
SUITES = {
    "paper": (
        "belebele",
        "xquad",
        "mlqa",
        "multieup",
        "neuclir-2022-hard-negatives",
        "neuclir-2023-hard-negatives",
        "miracl-hard-negatives-10",
    )
}
_MEAN = "mean of MLIR"


@dataclass(frozen=True)
class Suite:
    """The benchmarks of a suite by name.

    Attributes:
        results: content of `results.json` of the finished benchmarks.
        lacking: why a benchmark was left out.
    """

    configs: Mapping[str, BenchmarkConfig]
    results: Mapping[str, BenchmarkResults]
    lacking: Mapping[str, str]

    def raise_lacking(self) -> None:
        """Raises a DataError if a benchmark was left out."""
        if self.lacking:
            raise DataError(
                f"{len(self.lacking)} of {len(self.configs)} benchmarks were left out "
                f"({', '.join(self.lacking)}), expected their data as described above: run the command again "
                "with it"
            )

    def scores(self) -> dict[str, dict[str, float | None]]:
        """System -> main measure of each benchmark, and its mean over the MLIR benchmarks."""
        systems = dict.fromkeys(name for found in self.results.values() for name in found.evaluation.runs)
        scores: dict[str, dict[str, float | None]] = {}
        for system in systems:
            own: dict[str, float | None] = {}
            for name, found in self.results.items():
                run = found.evaluation.runs.get(system)
                own[name] = None if run is None else run.macro[self.configs[name].measures[0]]
            mixed = [own[name] for name in self.results if self.configs[name].setting is Setting.MLIR]
            known = [score for score in mixed if score is not None]
            scores[system] = {**own, _MEAN: fmean(known) if known and len(known) == len(mixed) else None}
        return scores

    def table(self) -> Table:
        """One row per system, one column per benchmark."""
        scores = self.scores()
        columns = [in_bold([number(own[name]) for own in scores.values()]) for name in (*self.results, _MEAN)]
        rows = [[words(system), *cells] for system, *cells in zip(scores, *columns, strict=True)]
        notes = [f"{name}: left out" for name in self.lacking]
        notes += [f"{name}: {found.subset.text}" for name, found in self.results.items() if found.subset]
        return Table.of("all benchmarks", ["system", *self._columns()], rows, notes)

    def _columns(self) -> list[str]:
        return [*(f"{name} {self.configs[name].measures[0]}" for name in self.results), _MEAN]

    def write(self, output: Path) -> str:
        """Writes `summary.json` and `summary.csv`, and returns their names."""
        import pandas as pd

        content = {
            "benchmarks": {
                name: {
                    "title": self.configs[name].title,
                    "measure": self.configs[name].measures[0],
                    "setting": self.configs[name].setting.value,
                }
                for name in self.results
            },
            "systems": self.scores(),
            "left_out": dict(self.lacking),
        }
        summary, table = output / "summary.json", output / "summary.csv"
        write_text(summary, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        frame = pd.DataFrame.from_dict(self.scores(), orient="index")
        write_text(table, frame.set_axis(self._columns(), axis="columns").to_csv(index_label="system"))
        return f"{summary}, {table}"


def reproduce_suite(
    name: str,
    output: Path,
    encoders: Sequence[str],
    options: Mapping[str, Any],
    *,
    encoding: EncoderOptions,
    command: str,
    say: Say,
    only_plan: bool = False,
) -> Suite:
    """Reproduces the benchmarks of a suite one after the other, each in a directory of its own.

    Every collection is checked before anything is encoded. Benchmarks without data are reported together and
    left out.

    Args:
        output: directory of `summary.json`, `summary.csv` and a directory per benchmark.
        encoders, options, encoding, command, say: see `reproduce`.

    Raises:
        UsageError: no such suite, or as `load_config`.
        DataError: all benchmarks lack data.
        MimoError: as `reproduce`, when a benchmark fails for another reason than its data.
    """
    if name not in SUITES:
        raise UsageError(f"--suite {name!r}: no such suite, expected one of {', '.join(SUITES)}")
    problems = Problems(UsageError)
    configs: dict[str, BenchmarkConfig] = {}
    for config in SUITES[name]:
        with problems.collect():
            configs[config] = load_config(config, **ReproduceOptions(**options).loading)
        with problems.collect():
            check_output(output / config, config)
    problems.raise_any()
    lacking: dict[str, str] = {}
    for config, found in configs.items():
        try:
            check_collections(found)
        except DataError as error:
            lacking[config] = str(error)
    if len(lacking) == len(configs):
        raise DataError("\n".join(dict.fromkeys("\n".join(lacking.values()).splitlines())))
    for config, reason in lacking.items():
        for line in reason.splitlines():
            say(f"{config}: left out: {line}")
    results: dict[str, BenchmarkResults] = {}
    for config in (one for one in configs if one not in lacking):
        say(f"== {config}")
        arguments = (configs[config], output / config, encoders)
        if only_plan:
            plan(*arguments, encoding=encoding, say=say, **options)
            continue
        try:
            done = reproduce(*arguments, encoding=encoding, command=command, say=say, **options)
            results[config] = done.results
        except DataError as error:
            # The files exist, and a problem of their content was found while reading.
            lacking[config] = str(error)
            say(f"{config}: left out: {error}")
    suite = Suite(configs, results, lacking)
    if results:
        say(suite.write(output))
    return suite
