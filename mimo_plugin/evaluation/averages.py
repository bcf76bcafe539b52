"""Scores of topics averaged: over topics, within languages, over languages."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum

from mimo_plugin.evaluation.scoring import Scores
from mimo_plugin.evaluation.topics import Topics


@dataclass(frozen=True)
class Averages:
    """mean: over all judged topics. per_language: over a language's. macro: over the languages' means."""

    mean: float
    macro: float
    per_language: Mapping[str, float]


def average(values: Scores, topics: Topics) -> Averages:
    """Averages the scores of one measure, exactly summed, so that no order of topics matters. values:
    (n,)"""
    per_language = {}
    for position, language in enumerate(topics.languages):
        part = values[topics.language_of == position]
        per_language[language] = fsum(part) / len(part)
    macro = fsum(per_language.values()) / len(per_language)
    return Averages(fsum(values) / len(values), macro, per_language)
