"""Several benchmarks with the same systems; those that lack data are said at once, and the others go on."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmark.parts import check_collections, check_output
from mimo_plugin.benchmark.reproduce import ReproduceOptions, Say, plan, reproduce
from mimo_plugin.core.errors import DataError, Findings, UsageError
from mimo_plugin.core.files import make_parent, write_text
from mimo_plugin.evaluation.options import Setting

if TYPE_CHECKING:
    from mimo_plugin.benchmark.config import BenchmarkConfig
    from mimo_plugin.core.table import Table
    from mimo_plugin.evaluation.results import BenchmarkResults

# What the MIMO paper reports.
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


@dataclass(frozen=True)
class Suite:
    """Attributes:
    configs: name -> benchmark, of all.
    results: name -> what `results.json` holds, of those that are done.
    lacking: name -> why it was left out.
    """

    configs: "Mapping[str, BenchmarkConfig]"
    results: "Mapping[str, BenchmarkResults]"
    lacking: Mapping[str, str]

    def raise_lacking(self) -> None:
        """Raises a DataError where a benchmark was left out."""
        if self.lacking:
            raise DataError(
                f"{len(self.lacking)} of {len(self.configs)} benchmarks were left out "
                f"({', '.join(self.lacking)}), expected their data as said above: run the command again when "
                "it is there"
            )

    def table(self) -> "Table":
        """A row a system, the first measure of each benchmark, and its mean over those that are MLIR."""
        from mimo_plugin.core.table import MISSING, Table

        headers = ["system", *(f"{name} {config.measures[0]}" for name, config in self._done.items())]
        rows = [
            [system, *(MISSING if score is None else f"{score:.4f}" for score in scores)]
            for system, scores in self._scores().items()
        ]
        notes = [f"{name}: left out" for name in self.lacking]
        notes += [
            f"{name}: {results.subset.text}" for name, results in self.results.items() if results.subset
        ]
        return Table.of("all benchmarks", [*headers, "mean of MLIR"], rows, notes)

    @property
    def _done(self) -> "dict[str, BenchmarkConfig]":
        return {name: self.configs[name] for name in self.results}

    def _scores(self) -> dict[str, list[float | None]]:
        systems = dict.fromkeys(
            system for results in self.results.values() for system in results.evaluation.runs
        )
        found: dict[str, list[float | None]] = {}
        for system in systems:
            scores: dict[str, float | None] = {}
            for name, config in self._done.items():
                run = self.results[name].evaluation.runs.get(system)
                scores[name] = None if run is None else run.macro[config.measures[0]]
            mixed = [scores[name] for name, config in self._done.items() if config.setting is Setting.MLIR]
            known = [score for score in mixed if score is not None]
            mean = fmean(known) if known and len(known) == len(mixed) else None
            found[system] = [*scores.values(), mean]
        return found

    def as_json(self) -> dict[str, Any]:
        columns = [*self.results, "mean of MLIR"]
        return {
            "benchmarks": {
                name: {"title": config.title, "measure": config.measures[0], "setting": config.setting.value}
                for name, config in self._done.items()
            },
            "systems": {
                system: dict(zip(columns, scores, strict=True)) for system, scores in self._scores().items()
            },
            "left_out": dict(self.lacking),
        }

    def as_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        table = self.table()
        writer.writerow(table.headers)
        writer.writerows([system, *scores] for system, scores in self._scores().items())
        return text.getvalue()


def reproduce_suite(
    name: str,
    load: "Callable[[str], BenchmarkConfig]",
    options: ReproduceOptions,
    say: Say,
    *,
    only_plan: bool = False,
) -> Suite:
    """Reproduces the benchmarks of a suite one after the other, each in a directory of its own.

    Every collection is looked for before anything is encoded. Benchmarks that lack data are said then, all at
    once, and left out; where all lack data nothing is done.

    Args:
        load: reads the config of a name.
        options: output: of all; `summary.json` and `summary.csv` lie beside the directories.

    Raises:
        UsageError: no such suite, or as `load_config`.
        DataError: all benchmarks lack data.
        MimoError: as `reproduce`, of the first benchmark that fails for another reason than its data.
    """
    if name not in SUITES:
        raise UsageError(f"--suite {name!r}: no such suite, expected one of {', '.join(SUITES)}")
    findings = Findings()
    read = {config: findings.attempt(load, config) for config in SUITES[name]}
    for config in SUITES[name]:
        findings.attempt(check_output, options.output / config, config)
    findings.raise_any()
    configs = {config: found for config, found in read.items() if found is not None}
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
        some = replace(options, output=options.output / config)
        say(f"== {config}")
        if only_plan:
            plan(configs[config], some, say)
            continue
        try:
            results[config] = reproduce(configs[config], some, say).results
        except DataError as error:
            # Of its contents, which only reading them tells.
            lacking[config] = str(error)
            say(f"{config}: left out: {error}")
    suite = Suite(configs, results, lacking)
    if results:
        for file, text in (
            ("summary.json", json.dumps(suite.as_json(), ensure_ascii=False, indent=2) + "\n"),
            ("summary.csv", suite.as_csv()),
        ):
            make_parent(options.output / file)
            write_text(options.output / file, text)
        say(f"{options.output / 'summary.json'}, {options.output / 'summary.csv'}")
    return suite
