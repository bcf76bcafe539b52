"""An experiment's results: means over seeds, contrasts, tables."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import not_
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mimo_plugin.benchmark.experiment import ExperimentRun
from mimo_plugin.benchmark.scoring import DIAGNOSTICS, MRC, PEER_SENSITIVE, ScoredCollection, Scores
from mimo_plugin.benchmark.steps import Layout
from mimo_plugin.core.config import ResultRecord
from mimo_plugin.core.files import write_text
from mimo_plugin.core.table import DAGGER, MISSING, Column, Table, render, words
from mimo_plugin.evaluation.compare import compared, corrected
from mimo_plugin.evaluation.measures import average
from mimo_plugin.evaluation.options import (
    CORRECTION_NAMES,
    TEST_NAMES,
    Correction,
    SignificanceTest,
    TableFormat,
)
from mimo_plugin.evaluation.results import ComparisonResult, ContrastResult
from mimo_plugin.evaluation.significance import UPPER_BOUND, Plan, Values, difference, permutation, student
from mimo_plugin.evaluation.tables import APART, difference_cells, difference_headers, unseen_marks
from mimo_plugin.evaluation.topics import Topics
from mimo_plugin.evaluation.trained_on import apart
from mimo_plugin.report.figures import BLUE, VERMILION, Figure, write_figure
from mimo_plugin.training.run import TrainingManifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


class OverSeeds(ResultRecord):
    """Attributes:
    mean: mean over the seeds with a value; None without any.
    deviation: sample standard deviation; None with fewer than two values.
    per_seed: seed -> value; empty for a system that does not depend on the seed.
    """

    mean: float | None
    deviation: float | None
    per_seed: Mapping[int, float | None]

    @classmethod
    def of(cls, values: Mapping[int | None, float | None]) -> "OverSeeds":
        there = [value for value in values.values() if value is not None]
        deviation = stdev(there) if len(there) > 1 else None
        per_seed = {seed: value for seed, value in values.items() if seed is not None}
        return cls(mean=fmean(there) if there else None, deviation=deviation, per_seed=per_seed)


# Seed -> a score for each topic, (n,); None is the seed of what does not depend on it.
PerSeed = Mapping[int | None, NDArray[np.float64]]


def unit_values(values: Values, topics: Topics) -> Values:
    """(runs, n) scores of topics -> (runs, units): sums within units, scaled to keep the mean of each row."""
    sums = np.stack([np.bincount(topics.block_of, row, topics.blocks) for row in values])
    scaled: Values = sums * (topics.blocks / values.shape[1])
    return scaled


def contrasts(
    systems: Mapping[str, PerSeed], baseline: str, topics: Topics, plan: Plan
) -> list[ContrastResult]:
    """Tests each system against the baseline, two-sided; p-values are corrected over the systems.

    Args:
        systems: name -> seed -> scores; a system that shares no seed with the baseline is left out. What does
            not depend on the seed shares all.
        plan: its test is Student's or the permutation test.
    """
    test = permutation if plan.test is SignificanceTest.PERMUTATION else student
    seeds: dict[str, tuple[int, ...]] = {}
    family: list[ComparisonResult] = []
    for name, scores in systems.items():
        sides = (systems[baseline], scores)
        every = dict.fromkeys((*scores, *systems[baseline]))
        shared = [seed for seed in every if all(seed in one or None in one for one in sides)]
        if name == baseline or not shared:
            continue
        seeds[name] = tuple(seed for seed in shared if seed is not None)
        means = [
            np.mean([one[seed] for seed in ([None] if None in one else shared)], axis=0) for one in sides
        ]
        values = np.stack(means)
        units = unit_values(values, topics)
        change, by_unit = difference(values, (0, 1)), difference(units, (0, 1))
        outcome = test(units, plan)[0, 1]
        family.append(compared(baseline, name, change, [by_unit], outcome, mean=fmean(change.tolist())))
    return [
        ContrastResult(
            system=one.run,
            seeds=seeds[one.run],
            units=topics.blocks,
            **one.model_dump(exclude={"note"}),
            note=one.note or "",
        )
        for one in corrected(family, plan, languages=1, macro=True)
    ]


class GridSystemResult(ResultRecord):
    """One system on one collection.

    Attributes:
        seeds: the scored seeds; empty for a system that does not depend on them.
        steps: optimiser steps, `warm_up` and `stage2`; empty for a system that is not trained.
        values: measure or diagnostic -> its value over seeds.
        unseen_languages: languages of the topics that it was not trained on.
        per_language: with several languages, language or "macro" -> the first measure over seeds; where a
            system has unseen languages, also "seen" and "unseen", parts of "macro".
    """

    seeds: tuple[int, ...]
    steps: Mapping[str, int]
    values: Mapping[str, OverSeeds]
    unseen_languages: tuple[str, ...] = Field(default=(), exclude_if=not_)
    per_language: Mapping[str, OverSeeds] = Field(default={}, exclude_if=not_)


class CollectionResult(ResultRecord):
    """Attributes:
    queries: number of judged topics.
    units: number of judged topics, language versions counted once.
    languages: language -> number of judged topics.
    systems: systems with a scored seed, in the recipe's order.
    contrasts: tests of the first measure against the baseline; empty without a scored baseline.
    remarks: caveats.
    """

    fingerprint: str
    queries: int
    units: int
    languages: Mapping[str, int]
    systems: Mapping[str, GridSystemResult]
    contrasts: tuple[ContrastResult, ...]
    remarks: tuple[str, ...]


class ExperimentResults(ResultRecord):
    """The content of an experiment's `results.json`.

    Attributes:
        test: how systems were compared.
        failed: "SYSTEM, seed N" -> why it could not be trained.
        runs: a record of each training run and its scores.
        environments: the distinct environments of the runs.
    """

    format: Literal["mimo-experiment"] = "mimo-experiment"
    format_version: Literal[1] = 1
    recipe: Mapping[str, Any]
    measures: tuple[str, ...]
    test: Mapping[str, Any]
    collections: Mapping[str, CollectionResult]
    failed: Mapping[str, str]
    runs: tuple[Mapping[str, Any], ...]
    environments: tuple[Mapping[str, Any], ...]


def gather(running: ExperimentRun) -> ExperimentResults:
    """Reads the results of all systems and seeds of the recipe, including those not selected."""
    recipe = running.experiment.recipe
    plan = Plan(recipe.test, recipe.correction, recipe.alpha, recipe.permutations)
    runs: list[dict[str, Any]] = []
    environments: list[dict[str, Any]] = []
    found: dict[str, dict[str, dict[int | None, Scores]]] = {name: {} for name in recipe.collections}
    steps: dict[str, dict[str, int]] = {}
    for name, system in running.experiment.systems.items():
        for seed in recipe.seeds:
            manifest, before = running.training(system, seed), running.warm_up(system, seed)
            if manifest is None:
                continue
            steps[name] = {"warm_up": 0 if before is None else before.steps, "stage2": manifest.steps}
            scored = {
                collection: scores
                for collection in recipe.collections
                if (scores := running.scores(name, seed, collection)) is not None
            }
            for collection, scores in scored.items():
                found[collection].setdefault(name, {})[seed] = scores
            runs.append(
                {
                    "system": name,
                    "seed": seed,
                    "warm_up": None if before is None else _trained(before),
                    "training": _trained(manifest),
                    "scores": {collection: _scored(scores) for collection, scores in scored.items()},
                }
            )
            environments += [part.environment for part in (before, manifest, *scored.values()) if part]
    for name in recipe.others:
        for own in recipe.fused_seeds(name):
            there = {
                collection: scores
                for collection in recipe.collections
                if (scores := running.scores(name, own, collection)) is not None
            }
            for collection, scores in there.items():
                found[collection].setdefault(name, {})[own] = scores
            if there:
                scored_on = {collection: _scored(scores) for collection, scores in there.items()}
                runs.append({"system": name, "seed": own, "scores": scored_on})
            environments += [scores.environment for scores in there.values()]
    main = str(running.measures[0])
    return ExperimentResults(
        recipe=recipe.model_dump(mode="json", by_alias=True),
        measures=tuple(map(str, running.measures)),
        test={
            "name": plan.test.value,
            "measure": main,
            "baseline": recipe.baseline,
            "correction": plan.correction.value,
            "alpha": plan.alpha,
            "permutations": plan.permutations,
            "seed": plan.seed,
            "unit": "a topic in all its languages, scores averaged over seeds",
        },
        collections={
            name: _collection(
                running.collections[name],
                by_system,
                {
                    system: unseen
                    for system in by_system
                    if (unseen := running.unseen(system, name)) is not None
                },
                steps,
                main,
                recipe.baseline,
                plan,
            )
            for name, by_system in found.items()
        },
        failed=running.failed,
        runs=tuple(runs),
        environments=tuple(one for place, one in enumerate(environments) if one not in environments[:place]),
    )


def _trained(part: TrainingManifest) -> dict[str, Any]:
    return {
        **part.model_dump(include={"steps", "best_step", "seconds"}),
        "dev": part.scores,
        "files": {file: record.sha256 for file, record in part.files.items()},
        "git_commit": part.environment.get("git_commit"),
    }


def _scored(scores: Scores) -> dict[str, Any]:
    kept = scores.model_dump(include={"encoder", "measures", "macro", "diagnostics", "seconds"})
    return {**kept, "run": scores.run.sha256}


def _collection(
    collection: ScoredCollection,
    scored: Mapping[str, Mapping[int | None, Scores]],
    unseen: Mapping[str, tuple[str, ...]],
    steps: Mapping[str, Mapping[str, int]],
    main: str,
    baseline: str | None,
    plan: Plan,
) -> CollectionResult:
    topics = collection.topics
    per_query = {
        name: {seed: np.array(scores.per_query[main]) for seed, scores in by_seed.items()}
        for name, by_seed in scored.items()
    }
    remarks = [
        f"{what}: {text}"
        for by_seed in scored.values()
        for scores in by_seed.values()
        for what, text in scores.remarks.items()
    ]
    return CollectionResult(
        fingerprint=collection.fingerprint,
        queries=len(topics.query_ids),
        units=topics.blocks,
        languages=topics.counts,
        systems={
            name: GridSystemResult(
                seeds=tuple(seed for seed in by_seed if seed is not None),
                steps=steps.get(name, {}),
                values=_over_seeds(by_seed),
                unseen_languages=unseen.get(name, ()),
                per_language=_per_language(per_query[name], topics, apart(name, topics.languages, unseen)),
            )
            for name, by_seed in scored.items()
        },
        contrasts=tuple(contrasts(per_query, baseline, topics, plan)) if baseline in per_query else (),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _per_language(
    scores: PerSeed, topics: Topics, parts: Mapping[str, Sequence[str]]
) -> dict[str, OverSeeds]:
    """Value of `GridSystemResult.per_language`. parts: "seen", "unseen" -> languages."""
    if len(topics.languages) < 2:
        return {}
    found = {seed: average(values, topics) for seed, values in scores.items()}
    groups: dict[str, Sequence[str]] = {language: [language] for language in topics.languages}
    groups |= {"macro": topics.languages, **parts}
    return {
        name: OverSeeds.of({seed: one.over(languages) for seed, one in found.items()})
        for name, languages in groups.items()
    }


def _over_seeds(by_seed: Mapping[int | None, Scores]) -> dict[str, OverSeeds]:
    values = {seed: {**scores.measures, **scores.diagnostics} for seed, scores in by_seed.items()}
    names = dict.fromkeys(name for one in by_seed.values() for name in one.measures)
    return {
        name: OverSeeds.of({seed: one[name] for seed, one in values.items()})
        for name in (*names, *DIAGNOSTICS, PEER_SENSITIVE)
    }


def write_results(results: ExperimentResults, layout: Layout) -> str:
    """Writes `results.json`, `results.md` and the picture; returns the tables as text."""
    tables = list(make_tables(results))
    markdown = render(tables, TableFormat.MARKDOWN)
    write_text(layout.results, results.to_json())
    write_text(layout.tables, f"# {results.recipe['name']}\n\n{markdown}")
    what = "Mean over seeds, bars of ± a standard deviation. A red point has one value and no bar."
    picture = Figure(layout.results.stem, results.measures[0], what, what, partial(_draw, results), [what])
    with TemporaryDirectory(prefix=".results-", dir=layout.results.parent) as beside:
        write_figure(picture, Path(beside))
        for file in Path(beside).iterdir():
            file.replace(layout.results.with_name(file.name))
    return render(tables, TableFormat.TEXT).rstrip()


def make_tables(results: ExperimentResults) -> Iterator[Table]:
    """The scores of each collection and, with a baseline, the tests."""
    for name, found in results.collections.items():
        yield _figures(results, name, found)
        if any(system.per_language for system in found.systems.values()):
            yield _by_language(results, name, found)
        if found.contrasts:
            yield _contrasts(results, name, found)
    if results.failed:
        yield Table.of("not trained", ["system", Column("why", text=True)], results.failed.items())


def _figures(results: ExperimentResults, name: str, found: CollectionResult) -> Table:
    columns = (*results.measures, *DIAGNOSTICS)
    rows = []
    for system in (*results.recipe["systems"], *results.recipe.get("others", ())):
        scored = found.systems.get(system)
        if scored is None:
            rows.append([system, "0", MISSING, *([MISSING] * len(columns))])
            continue
        steps = " + ".join(str(count) for count in scored.steps.values() if count) or MISSING
        cells = [_cell(scored.values[column], 2 if column == MRC else 4) for column in columns]
        rows.append([system, str(len(scored.seeds) or MISSING), steps, *cells])
    title = (
        f"{results.recipe['name']} on {name}: {found.queries} topics in {len(found.languages)} languages, "
        "mean ± standard deviation over seeds"
    )
    notes = (
        "steps: of the warm-up + of stage 2. own language: share of the first hits. alignment, uniformity: "
        f"of the documents, lower is better. {MRC}: times 100. {MISSING}: not defined, or not there yet.",
        *found.remarks,
    )
    return Table.of(title, ["system", "seeds", "steps", *columns], rows, notes)


def _draw(results: ExperimentResults) -> "Canvas":
    """The first measure, a panel a collection: a point a system, with a bar of a standard deviation."""
    from matplotlib.figure import Figure as Canvas

    main = results.measures[0]
    names = [*results.recipe["systems"], *results.recipe.get("others", ())]
    size = (1.2 + 3.2 * len(results.collections), 1.0 + 0.3 * len(names))
    canvas = Canvas(figsize=size, layout="constrained")
    panels = canvas.subplots(1, len(results.collections), sharey=True, squeeze=False)[0]
    for axes, (collection, found) in zip(panels, results.collections.items(), strict=True):
        for row, name in enumerate(names):
            value = found.systems[name].values[main] if name in found.systems else None
            if value is not None and value.mean is not None:
                color = BLUE if value.per_seed else VERMILION
                axes.errorbar(value.mean, row, xerr=value.deviation, fmt="o", color=color, capsize=3)
        axes.set(title=collection, xlabel=main, ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="x", alpha=0.25)
    return canvas


def _by_language(results: ExperimentResults, name: str, found: CollectionResult) -> Table:
    """The first measure in each query language."""
    unseen = {system: one.unseen_languages for system, one in found.systems.items()}
    marks, notes = unseen_marks(found.languages, unseen)
    systems, nothing = list(found.systems.values()), OverSeeds.of({})
    rows = [
        [f"{language}{marks.get(language, '')}", str(found.languages.get(language, "")), *cells]
        for language in dict.fromkeys(key for system in systems for key in system.per_language)
        for cells in [[_cell(system.per_language.get(language, nothing), 4) for system in systems]]
    ]
    if any(unseen.values()):
        notes.append(APART)
    title = f"{results.measures[0]} on {name} by query language, mean ± standard deviation over seeds"
    return Table.of(title, ["language", "topics", *found.systems], rows, notes)


def _cell(value: OverSeeds, digits: int) -> str:
    if value.mean is None:
        return MISSING
    if not value.per_seed:
        return f"{value.mean:.{digits}f}"
    deviation = MISSING if value.deviation is None else f"{value.deviation:.{digits}f}"
    there = sum(number is not None for number in value.per_seed.values())
    partly = "" if there == len(value.per_seed) else f" ({there} seeds)"
    return f"{value.mean:.{digits}f} ± {deviation}{partly}"


def _contrasts(results: ExperimentResults, name: str, found: CollectionResult) -> Table:
    test = results.test
    rows = [[words(contrast.system), *difference_cells(contrast)] for contrast in found.contrasts]
    title = f"{results.measures[0]} on {name}, difference from {test['baseline']}"
    together = ", language versions of a topic taken as one" if found.units < found.queries else ""
    corrected = (
        "p not corrected"
        if test["correction"] == Correction.NONE
        else f"p corrected by {CORRECTION_NAMES[test['correction']]} over {len(found.contrasts)} systems"
    )
    notes = [
        f"two-sided {TEST_NAMES[test['name']]} on topics' scores averaged over seeds, {found.units} "
        f"units{together}; {corrected}; {DAGGER} significant at level {test['alpha']:g}. "
        "w/t/l: topics won, tied, lost."
    ]
    notes += [f"{one.system}: {one.note}" for one in found.contrasts if one.note and one.note != UPPER_BOUND]
    notes += [
        f"{one.system}: seeds {', '.join(map(str, one.seeds))} only"
        for one in found.contrasts
        if one.seeds and set(one.seeds) != set(results.recipe["seeds"])
    ]
    return Table.of(title, ["system", *difference_headers(test["alpha"])], rows, notes)
