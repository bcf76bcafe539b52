"""What things are called in the report."""

import re
from collections import Counter

from mimo_plugin.report.results import Results

_MEASURES = {
    "ndcg": "nDCG",
    "map": "MAP",
    "mrr": "MRR",
    "recall": "Recall",
    "p": "P",
    "success": "Success",
    "rprec": "R-Precision",
    "judged": "Judged",
}


def measure_name(measure: str) -> str:
    """As papers write it: ndcg@10 -> nDCG@10."""
    kind, at, cutoff = measure.partition("@")
    return f"{_MEASURES.get(kind, kind)}{at}{cutoff}"


def system_names(results: Results) -> dict[str, str]:
    """System or run -> how it is called: by its label, unless another one has the same."""
    names = dict.fromkeys([*results.evaluation.runs, *results.systems, *results.language_bias])
    labels = {
        name: (results.systems[name].label.strip() if name in results.systems else "") or name
        for name in names
    }
    often = Counter(labels.values())
    return {name: label if often[label] == 1 else f"{label} [{name}]" for name, label in labels.items()}


class FileNames:
    """Makes names of files, each once.

    >>> names = FileNames()
    >>> names.of("language mix", "MIMO/XLM-R"), names.of("language mix", "mimo xlm r")
    ('language-mix-mimo-xlm-r', 'language-mix-mimo-xlm-r-2')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, *parts: str) -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")[:60] or "unnamed"
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        return name
