"""An experiment's results: means over seeds, contrasts, tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.benchmark.grid import Experiment, ExperimentRecipe
from mimo_plugin.benchmark.scoring import DIAGNOSTICS, MRC, PEER_SENSITIVE, Scores
from mimo_plugin.benchmark.steps import Checked, Done
from mimo_plugin.core.table import DAGGER, MISSING, Column, Table
from mimo_plugin.evaluation.compare import correct, effect_size
from mimo_plugin.evaluation.options import CORRECTION_NAMES, TEST_NAMES, Correction, SignificanceTest
from mimo_plugin.evaluation.significance import UPPER_BOUND, Plan, Values, difference, permutation, student
from mimo_plugin.evaluation.topics import Topics
from mimo_plugin.training.run import TrainingManifest


class OverSeeds(NamedTuple):
    """Attributes:
    mean: over the seeds for which the value is defined; None where it is for none.
    deviation: standard deviation, of a sample; None with fewer than two values.
    values: seed -> value.
    """

    mean: float | None
    deviation: float | None
    values: Mapping[int, float | None]

    @classmethod
    def of(cls, values: Mapping[int, float | None]) -> "OverSeeds":
        there = [value for value in values.values() if value is not None]
        return cls(fmean(there) if there else None, stdev(there) if len(there) > 1 else None, dict(values))


class Contrast(NamedTuple):
    """System minus baseline on one measure.

    Attributes:
        difference: mean over topics.
        ci_low, ci_high, effect_size, p, p_corrected: None where not defined, and then why in `note`. The
            effect size is d_z: the units' mean difference over its standard deviation. p is never 0: where it
            is too small to be computed it is an upper bound, which `note` says.
        wins, ties, losses: topics.
        seeds: that both systems have.
        queries, units: what was averaged, and what the test takes for independent.
    """

    system: str
    baseline: str
    difference: float
    ci_low: float | None
    ci_high: float | None
    effect_size: float | None
    wins: int
    ties: int
    losses: int
    p: float | None
    p_corrected: float | None
    significant: bool
    note: str
    seeds: tuple[int, ...]
    queries: int
    units: int


# seed -> a score for each topic, (n,)
PerSeed = Mapping[int, NDArray[np.float64]]


def unit_values(values: Values, topics: Topics) -> Values:
    """Scores summed within units and scaled: a row's mean over units is its mean over topics.

    values: (runs, n) -> (runs, units)
    """
    sums = np.stack([np.bincount(topics.block_of, row, topics.blocks) for row in values])
    scaled: Values = sums * (topics.blocks / values.shape[1])
    return scaled


def contrasts(systems: Mapping[str, PerSeed], baseline: str, topics: Topics, plan: Plan) -> list[Contrast]:
    """Tests each system against the baseline, two-sided; p-values are corrected over the systems.

    Args:
        systems: name -> seed -> scores; a system that shares no seed with the baseline is left out.
        plan: student or permutation.
    """
    found = [
        _contrast(name, scores, baseline, systems[baseline], topics, plan)
        for name, scores in systems.items()
        if name != baseline and scores.keys() & systems[baseline].keys()
    ]
    tested = [place for place, contrast in enumerate(found) if contrast.p is not None]
    p_values = np.array([found[place].p for place in tested], dtype=np.float64)
    for place, p in zip(tested, correct(p_values, plan, languages=1, macro=True).tolist(), strict=True):
        found[place] = found[place]._replace(p_corrected=p, significant=p <= plan.alpha)
    return found


def _contrast(
    name: str, scores: PerSeed, baseline: str, reference: PerSeed, topics: Topics, plan: Plan
) -> Contrast:
    seeds = tuple(seed for seed in scores if seed in reference)
    values = np.stack([_over_seeds(reference, seeds), _over_seeds(scores, seeds)])
    units = unit_values(values, topics)
    test = permutation if plan.test is SignificanceTest.PERMUTATION else student
    outcome = test(units, plan)[0, 1]
    change, by_unit = difference(values, (0, 1)), difference(units, (0, 1))
    return Contrast(
        system=name,
        baseline=baseline,
        difference=fmean(change.tolist()),
        ci_low=outcome.ci_low,
        ci_high=outcome.ci_high,
        effect_size=effect_size(float(by_unit.mean()), [by_unit]),
        wins=int(np.count_nonzero(change > 0)),
        ties=int(np.count_nonzero(change == 0)),
        losses=int(np.count_nonzero(change < 0)),
        p=outcome.p,
        p_corrected=None,
        significant=False,
        note=outcome.note,
        seeds=seeds,
        queries=len(change),
        units=topics.blocks,
    )


def _over_seeds(scores: PerSeed, seeds: Sequence[int]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean([scores[seed] for seed in seeds], axis=0)
    return mean


FORMAT = "mimo-experiment"


@dataclass(frozen=True)
class SystemResults:
    """One system on one collection.

    Attributes:
        seeds: those that were scored.
        steps: optimiser steps of the warm-up and of stage 2.
        values: measure or diagnostic -> its value over seeds.
    """

    seeds: tuple[int, ...]
    steps: tuple[int, int]
    values: Mapping[str, OverSeeds]


@dataclass(frozen=True)
class CollectionResults:
    """Attributes:
    systems: those with a seed that was scored, in the recipe's order.
    contrasts: of the first measure with the baseline; none where there is none, or it is not scored yet.
    remarks: what to know of the figures.
    queries, units: judged topics, and these with the language versions of a topic taken as one.
    languages: language -> judged topics.
    """

    fingerprint: str
    queries: int
    units: int
    languages: Mapping[str, int]
    systems: Mapping[str, SystemResults]
    contrasts: Sequence[Contrast]
    remarks: Sequence[str]


@dataclass(frozen=True)
class Results:
    """Attributes:
    measures: the measures asked for.
    plan: how systems were compared.
    collections: by name.
    failed: "SYSTEM, seed N" -> why it could not be trained.
    runs: a record of each training run and its scores.
    environments: what they ran on, each once.
    """

    recipe: ExperimentRecipe
    measures: tuple[str, ...]
    plan: Plan
    collections: Mapping[str, CollectionResults]
    failed: Mapping[str, str]
    runs: Sequence[Mapping[str, Any]]
    environments: Sequence[Mapping[str, Any]]

    def to_json(self) -> str:
        """All of it; undefined values are null."""
        content = {
            "format": FORMAT,
            "format_version": 1,
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
            "measures": list(self.measures),
            "test": {
                "name": self.plan.test.value,
                "measure": self.measures[0],
                "baseline": self.recipe.baseline,
                "correction": self.plan.correction.value,
                "alpha": self.plan.alpha,
                "permutations": self.plan.permutations,
                "seed": self.plan.seed,
                "unit": "a topic in all its languages, scores averaged over seeds",
            },
            "collections": {name: _collection(found) for name, found in self.collections.items()},
            "failed": dict(self.failed),
            "runs": list(self.runs),
            "environments": list(self.environments),
        }
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def gather(experiment: Experiment, checked: Checked, done: Done, failed: Mapping[str, str]) -> Results:
    """Reads what lies there of all systems and seeds of the recipe, whatever of it was asked for now."""
    recipe = experiment.recipe
    measures = tuple(map(str, checked.measures))
    plan = Plan(recipe.test, recipe.correction, recipe.alpha, recipe.permutations)
    runs: list[dict[str, Any]] = []
    environments: list[dict[str, Any]] = []
    found: dict[str, dict[str, dict[int, Scores]]] = {name: {} for name in recipe.collections}
    steps: dict[str, tuple[int, int]] = {}
    for name, system in experiment.systems.items():
        for seed in recipe.seeds:
            manifest, before = done.training(system, seed), done.warm_up(system, seed)
            if manifest is None:
                continue
            steps[name] = (0 if before is None else before.steps, manifest.steps)
            scored = {
                collection: scores
                for collection in recipe.collections
                if (scores := done.scores(system, seed, collection)) is not None
            }
            for collection, scores in scored.items():
                found[collection].setdefault(name, {})[seed] = scores
            runs.append(_run(name, seed, before, manifest, scored))
            environments += [part.environment for part in (before, manifest) if part is not None]
            environments += [scores.environment for scores in scored.values()]
    return Results(
        recipe=recipe,
        measures=measures,
        plan=plan,
        collections={
            name: _found(checked, name, by_system, steps, recipe.baseline, plan)
            for name, by_system in found.items()
        },
        failed=failed,
        runs=runs,
        environments=[one for place, one in enumerate(environments) if one not in environments[:place]],
    )


def _found(
    checked: Checked,
    collection: str,
    scored: Mapping[str, Mapping[int, Scores]],
    steps: Mapping[str, tuple[int, int]],
    baseline: str | None,
    plan: Plan,
) -> CollectionResults:
    topics = checked.collections[collection].topics
    main = str(checked.measures[0])
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
    return CollectionResults(
        fingerprint=checked.collections[collection].fingerprint,
        queries=len(topics.query_ids),
        units=topics.blocks,
        languages=topics.counts,
        systems={
            name: SystemResults(
                tuple(by_seed), steps[name], _values(by_seed, tuple(map(str, checked.measures)))
            )
            for name, by_seed in scored.items()
        },
        contrasts=contrasts(per_query, baseline, topics, plan) if baseline in per_query else [],
        remarks=list(dict.fromkeys(remarks)),
    )


def _values(by_seed: Mapping[int, Scores], measures: Sequence[str]) -> dict[str, OverSeeds]:
    values = {
        measure: OverSeeds.of({seed: scores.measures[measure] for seed, scores in by_seed.items()})
        for measure in measures
    }
    for name in (*DIAGNOSTICS, PEER_SENSITIVE):
        values[name] = OverSeeds.of({seed: scores.diagnostics[name] for seed, scores in by_seed.items()})
    return values


def _run(
    name: str,
    seed: int,
    before: TrainingManifest | None,
    manifest: TrainingManifest,
    scored: Mapping[str, Scores],
) -> dict[str, Any]:
    def trained(part: TrainingManifest) -> dict[str, Any]:
        return {
            "steps": part.steps,
            "best_step": part.best_step,
            "dev": part.scores,
            "seconds": part.seconds,
            "files": {file: record.sha256 for file, record in part.files.items()},
            "git_commit": part.environment.get("git_commit"),
        }

    return {
        "system": name,
        "seed": seed,
        "warm_up": None if before is None else trained(before),
        "training": trained(manifest),
        "scores": {
            collection: {
                "encoder": scores.encoder,
                "run": scores.run.sha256,
                "measures": scores.measures,
                "macro": scores.macro,
                "diagnostics": scores.diagnostics,
                "seconds": scores.seconds,
            }
            for collection, scores in scored.items()
        },
    }


def _collection(found: CollectionResults) -> dict[str, Any]:
    return {
        "fingerprint": found.fingerprint,
        "queries": found.queries,
        "units": found.units,
        "languages": dict(found.languages),
        "systems": {
            name: {
                "seeds": list(system.seeds),
                "steps": {"warm_up": system.steps[0], "stage2": system.steps[1]},
                "values": {
                    what: {
                        "mean": value.mean,
                        "deviation": value.deviation,
                        "per_seed": {str(seed): number for seed, number in value.values.items()},
                    }
                    for what, value in system.values.items()
                },
            }
            for name, system in found.systems.items()
        },
        "contrasts": [contrast._asdict() for contrast in found.contrasts],
        "remarks": list(found.remarks),
    }


def make_tables(results: Results) -> list[Table]:
    """For each collection the figures and, where there is a baseline, the tests."""
    tables = []
    for name, found in results.collections.items():
        tables.append(_figures(results, name, found))
        if found.contrasts:
            tables.append(_contrasts(results, name, found))
    if results.failed:
        rows = [[name, reason] for name, reason in results.failed.items()]
        tables.append(Table.of("not trained", ["system", Column("why", text=True)], rows))
    return tables


def _figures(results: Results, name: str, found: CollectionResults) -> Table:
    columns = (*results.measures, *DIAGNOSTICS)
    rows = []
    for system in results.recipe.systems:
        scored = found.systems.get(system)
        if scored is None:
            rows.append([system, "0", MISSING, *([MISSING] * len(columns))])
            continue
        warm_up, joint = scored.steps
        steps = f"{warm_up} + {joint}" if warm_up else str(joint)
        cells = [_cell(scored.values[column], 2 if column == MRC else 4) for column in columns]
        rows.append([system, str(len(scored.seeds)), steps, *cells])
    title = (
        f"{results.recipe.name} on {name}: {found.queries} topics in {len(found.languages)} languages, mean "
        "± standard deviation over seeds"
    )
    notes = (
        "steps: of the warm-up + of stage 2. own language: share of the first hits. alignment, uniformity: "
        f"of the documents, lower is better. {MRC}: times 100. {MISSING}: not defined, or not there yet.",
        *found.remarks,
    )
    return Table.of(title, ["system", "seeds", "steps", *columns], rows, notes)


def _contrasts(results: Results, name: str, found: CollectionResults) -> Table:
    plan = results.plan
    level = f"{100 * (1 - plan.alpha):g}% interval"
    headers = ["system", "difference", level, "d_z", "w/t/l", "p", "corrected p"]
    rows = [_contrast_row(contrast) for contrast in found.contrasts]
    title = f"{results.measures[0]} on {name}, difference from {results.recipe.baseline}"
    together = ", language versions of a topic taken as one" if found.units < found.queries else ""
    corrected = (
        "p not corrected"
        if plan.correction is Correction.NONE
        else f"p corrected by {CORRECTION_NAMES[plan.correction]} over {len(found.contrasts)} systems"
    )
    notes = [
        f"two-sided {TEST_NAMES[plan.test]} on topics' scores averaged over seeds, {found.units} "
        f"units{together}; {corrected}; {DAGGER} significant at level {plan.alpha:g}. "
        "w/t/l: topics won, tied, lost."
    ]
    notes += [f"{one.system}: {one.note}" for one in found.contrasts if one.note and one.note != UPPER_BOUND]
    partly = [one for one in found.contrasts if set(one.seeds) != set(results.recipe.seeds)]
    notes += [f"{one.system}: seeds {_listed(one.seeds)} only" for one in partly]
    return Table.of(title, headers, rows, notes)


def _contrast_row(contrast: Contrast) -> list[str]:
    low, high = contrast.ci_low, contrast.ci_high
    bound = "<" if contrast.note == UPPER_BOUND else ""
    return [
        contrast.system,
        f"{contrast.difference:+.4f}",
        MISSING if low is None or high is None else f"{low:+.4f} .. {high:+.4f}",
        MISSING if contrast.effect_size is None else f"{contrast.effect_size:+.2f}",
        f"{contrast.wins}/{contrast.ties}/{contrast.losses}",
        _p(contrast.p, bound),
        _p(contrast.p_corrected, bound) + (DAGGER if contrast.significant else ""),
    ]


def _cell(value: OverSeeds, digits: int) -> str:
    if value.mean is None:
        return MISSING
    deviation = MISSING if value.deviation is None else f"{value.deviation:.{digits}f}"
    there = sum(number is not None for number in value.values.values())
    partly = "" if there == len(value.values) else f" ({there} seeds)"
    return f"{value.mean:.{digits}f} ± {deviation}{partly}"


def _p(value: float | None, bound: str) -> str:
    if value is None:
        return MISSING
    return bound + (f"{value:.4f}" if value >= 0.001 else f"{value:.1e}")


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
