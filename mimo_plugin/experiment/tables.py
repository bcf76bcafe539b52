"""The results as tables for a reader."""

from collections.abc import Sequence

from mimo_plugin.evaluation.choices import CORRECTION_NAMES, TEST_NAMES, Correction
from mimo_plugin.evaluation.significance import UPPER_BOUND
from mimo_plugin.evaluation.tables import DAGGER, MISSING, Table
from mimo_plugin.experiment.results import CollectionResults, Results
from mimo_plugin.experiment.scoring import DIAGNOSTICS, MRC
from mimo_plugin.experiment.statistics import Contrast, OverSeeds


def make_tables(results: Results) -> list[Table]:
    """For each collection the figures and, where there is a baseline, the tests."""
    tables = []
    for name, found in results.collections.items():
        tables.append(_figures(results, name, found))
        if found.contrasts:
            tables.append(_contrasts(results, name, found))
    if results.failed:
        rows = [[name, reason] for name, reason in results.failed.items()]
        tables.append(Table("not trained", ["system", "why"], rows, 2))
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
    return Table(title, ["system", "seeds", "steps", *columns], rows, notes=notes)


def _contrasts(results: Results, name: str, found: CollectionResults) -> Table:
    plan = results.plan
    level = f"{100 * (1 - plan.alpha):g}% interval"
    headers = ["system", "difference", level, "d_z", "w/t/l", "p", "corrected p"]
    rows = [_contrast(contrast) for contrast in found.contrasts]
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
    return Table(title, headers, rows, notes=tuple(notes))


def _contrast(contrast: Contrast) -> list[str]:
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
