"""Published scores on the languages that are chosen."""

from collections.abc import Sequence
from statistics import fmean

from mimo_plugin.benchmarks.schema import Reference

# As published scores are.
_DIGITS = 4


def chosen_references(
    references: Sequence[Reference], languages: Sequence[str], same: bool
) -> tuple[Reference, ...]:
    """The references with the scores of the languages that are chosen; those without any are left out.

    Args:
        languages: that are chosen; none are all.
        same: they are those that the published averages are over. Otherwise, and where none was published,
            the average is that of the scores per language, if there is one for each.
    """
    chosen = []
    for reference in references:
        scores = reference.per_language
        if languages:
            scores = {name: score for name, score in scores.items() if name in languages}
        macro = reference.macro if same else None
        if macro is None and languages and len(scores) == len(languages):
            macro = round(fmean(scores.values()), _DIGITS)
        if scores or macro is not None:
            chosen.append(reference.model_copy(update={"per_language": scores, "macro": macro}))
    return tuple(chosen)
