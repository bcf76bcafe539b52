"""An evaluation as JSON."""

import json
from typing import Any

from mimo_plugin.evaluation.comparison import Comparison
from mimo_plugin.evaluation.evaluation import Evaluation
from mimo_plugin.evaluation.measures import Measure
from mimo_plugin.evaluation.scoring import RunScores


def to_json(evaluation: Evaluation) -> str:
    """Text of a JSON object: measures, runs, comparisons, test, topics.

    Values that are not defined are null, never NaN. A p that is too small to be computed is an upper
    bound, never 0; the comparison's note says so.
    """
    measures = tuple(dict.fromkeys((*evaluation.measures, evaluation.judged)))
    content = {
        "measures": [str(measure) for measure in measures],
        "runs": {scores.name: _run(evaluation, scores, measures) for scores in evaluation.scores},
        "comparisons": [_comparison(comparison) for comparison in evaluation.comparisons],
        "test": _test(evaluation),
        "topics": {
            "judged": len(evaluation.topics.query_ids),
            "languages": evaluation.topics.counts,
            "parallel": evaluation.topics.parallel,
            "units": evaluation.topics.blocks,
        },
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def _run(evaluation: Evaluation, scores: RunScores, measures: tuple[Measure, ...]) -> dict[str, Any]:
    averages = {str(measure): evaluation.averages(scores, measure) for measure in measures}
    counts = scores.counts
    trained_on = evaluation.trained_on.get(scores.name)
    return {
        "mean": {name: average.mean for name, average in averages.items()},
        "macro": {name: average.macro for name, average in averages.items()},
        "per_language": {
            language: {name: average.per_language[language] for name, average in averages.items()}
            | {"queries": queries}
            for language, queries in evaluation.topics.counts.items()
        },
        "queries": {
            "judged": counts.judged,
            "retrieved": counts.retrieved,
            "missing": counts.missing,
            "unjudged": counts.unjudged,
            "unknown": counts.unknown,
        },
        **({"trained_on": trained_on.as_json()} if trained_on else {}),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return vars(comparison) | {"measure": str(comparison.measure), "note": comparison.note or None}


def _test(evaluation: Evaluation) -> dict[str, Any] | None:
    plan = evaluation.plan
    if plan is None:
        return None
    return {
        "name": plan.test.value,
        "macro": _macro(evaluation),
        "baseline": evaluation.baseline,
        "correction": plan.correction.value,
        "alpha": plan.alpha,
        "confidence": 1 - plan.alpha,
        "permutations": plan.permutations,
        "seed": plan.seed,
    }


def _macro(evaluation: Evaluation) -> dict[str, str]:
    if evaluation.topics.parallel:
        units, within = "units (a topic in all its languages)", "from one stratum of all units"
    else:
        units, within = "topics", "within their language"
    return {
        "p": f"randomisation of run labels within {units}",
        "interval": f"percentile bootstrap of {units}, drawn {within}",
        "note": "p and interval come from different methods and can disagree at the level",
    }
