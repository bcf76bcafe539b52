"""Sentences of the report: settings, tests, how a number is to be read."""

from collections.abc import Mapping

from mimo_plugin.benchmarks.choices import Setting
from mimo_plugin.evaluation.choices import CORRECTION_NAMES, TEST_NAMES
from mimo_plugin.evaluation.tables import DAGGER
from mimo_plugin.report.results import Results
from mimo_plugin.report.shapes import Procedure, Topics

MONOLINGUAL = (Setting.MULTI_MONOLINGUAL, Setting.MIXED_MONOLINGUAL)

SETTINGS: Mapping[str, tuple[str, str]] = {
    Setting.MULTI_MONOLINGUAL: (
        "Multi-monolingual retrieval",
        "There is one collection a language, and a query searches the documents in its own language.",
    ),
    Setting.MLIR: (
        "Multilingual retrieval (MLIR)",
        "One index holds documents in many languages, and a query in any of them should bring back what is "
        "relevant whatever its language.",
    ),
    Setting.CLIR: (
        "Cross-lingual retrieval (CLIR)",
        "Queries are in another language than the documents that they should bring back.",
    ),
    Setting.MIXED_MONOLINGUAL: (
        "Mixed-corpus monolingual retrieval",
        "One index holds documents in many languages, but documents were judged in the query's own language "
        "only: what is relevant in another language counts as not relevant. This is no test of multilingual "
        "retrieval; Judged@k shows how much of what was found had been judged at all.",
    ),
}
_MIXED_LABEL = "Mixed-corpus monolingual: judged in the query's own language only."


def labels(results: Results) -> tuple[str, ...]:
    """What has to stand beside every number, in every output."""
    found = []
    if results.subset is not None:
        found.append(results.subset.text)
    if results.config.setting == Setting.MIXED_MONOLINGUAL:
        found.append(_MIXED_LABEL)
    return tuple(found)


def setting(results: Results) -> tuple[str, str]:
    """The setting's name, and what it is."""
    return SETTINGS.get(results.config.setting, (results.config.setting, ""))


def dagger(test: Procedure, names: dict[str, str]) -> str:
    against = names.get(test.baseline or "", test.baseline)
    return f"{DAGGER} differs significantly from {against}, up or down. " + procedure(test)


def procedure(test: Procedure) -> str:
    """How differences were tested."""
    name = TEST_NAMES.get(test.name, test.name)
    corrected = (
        "p not corrected"
        if test.correction == "none"
        else f"p corrected by {CORRECTION_NAMES.get(test.correction, test.correction)} within a measure"
    )
    return f"Two-sided {name} a language; {corrected}; level {test.alpha:g}."


def macro_procedure(test: Procedure, topics: Topics) -> str:
    """How the difference in macro averages was tested."""
    units = f", {topics.units:,} units" if topics.parallel else ""
    said = {key: text for key, text in test.macro.items() if text}
    parts = [f"p by {said['p']}"] if "p" in said else []
    parts += [f"interval by {said['interval']}"] if "interval" in said else []
    note = f"; {said['note']}" if "note" in said else ""
    return f"Macro average: {'; '.join(parts)}{units}{note}." if parts else ""
