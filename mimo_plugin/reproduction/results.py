"""Everything about a benchmark's systems as one JSON object, which the report is made of."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mimo_plugin.benchmarks.choices import Gain
from mimo_plugin.evaluation.json_report import to_json
from mimo_plugin.evaluation.language_bias import CUTOFF
from mimo_plugin.reproduction.made import MadeRun
from mimo_plugin.reproduction.systems import System

if TYPE_CHECKING:
    from mimo_plugin.benchmarks.schema import BenchmarkConfig
    from mimo_plugin.evaluation.evaluation import Evaluation
    from mimo_plugin.reproduction.parts import Benchmark

FORMAT: Final = "mimo-reproduction"


def results_object(
    benchmark: "Benchmark",
    systems: Sequence[System],
    made: Mapping[str, MadeRun],
    evaluation: "Evaluation",
    language_bias: Mapping[str, Any],
    geometry: Mapping[str, Any] | None,
    warnings: Sequence[str],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Args:
    made: notes of the systems whose runs were made here.
    language_bias: system -> JSON object.
    """
    config = benchmark.config
    return {
        "format": FORMAT,
        "format_version": 1,
        "config": {
            "name": config.name,
            "title": config.title,
            "setting": config.setting.value,
            "note": _note(config),
            "gain": config.gain.value,
            "collections": list(benchmark.specs),
            "languages": list(evaluation.topics.counts),
            "measures": [str(measure) for measure in evaluation.measures],
            "depth": config.depth,
            "fairness_cutoff": config.fairness.cutoff if config.fairness else CUTOFF,
        },
        "subset": benchmark.subset(),
        "systems": {system.name: _system(system, made.get(system.name)) for system in systems},
        "evaluation": json.loads(to_json(evaluation)),
        "language_bias": dict(language_bias),
        "geometry": geometry,
        "reference": [reference.model_dump(mode="json") for reference in config.reference],
        "warnings": list(warnings),
        "provenance": dict(provenance),
    }


def _note(config: "BenchmarkConfig") -> str | None:
    binary = "Judgments count 0 or 1, whatever their grade." if config.gain is Gain.BINARY else None
    return " ".join(filter(None, [config.note, binary])) or None


def _system(system: System, made: MadeRun | None) -> dict[str, Any]:
    return {
        "kind": system.kind.value,
        "label": system.name,
        "encoder": made.encoder if made else None,
        "fingerprint": made.fingerprint if made else None,
        "documents": made.documents if made else None,
        "index_bytes": made.index_bytes if made else None,
        "seconds": dict(made.seconds) if made else {},
        "parts": list(system.parts),
        "details": dict(made.details) if made else {},
    }
