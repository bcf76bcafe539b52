"""The language bias of a run as a JSON object."""

from math import isnan
from typing import Any

from mimo_plugin.evaluation.awrf import Awrf
from mimo_plugin.evaluation.cross_lingual_gap import CrossLingualGap, Gap
from mimo_plugin.evaluation.fairness import Peer, RankCorrelation
from mimo_plugin.evaluation.language_bias import LanguageBias
from mimo_plugin.evaluation.language_mix import LanguageMix
from mimo_plugin.evaluation.preference import Preference


def as_json(bias: LanguageBias) -> dict[str, Any]:
    """What `json.dumps` takes. What is not defined is null, never NaN or 0; `skipped` says why.

    `peer_at` and `mrc_at`, cutoff -> what `peer` and `mrc` hold, are there where further cutoffs are.
    """
    further = {
        "peer_at": {str(at): _peer(found) for at, found in bias.peer_at.items()},
        "mrc_at": {str(at): _mrc(found) for at, found in bias.mrc_at.items()},
    }
    return {
        "cutoff": bias.cutoff,
        "peer": _peer(bias.peer),
        "peer_raw": _peer(bias.peer_raw),
        "mrc": _mrc(bias.mrc) if bias.mrc else None,
        "awrf": _awrf(bias.awrf) if bias.awrf else None,
        "language_mix": _mix(bias.language_mix),
        "same_language_preference": (
            _preference(bias.same_language_preference) if bias.same_language_preference else None
        ),
        "cross_lingual_gap": _cross_lingual_gap(bias.cross_lingual_gap) if bias.cross_lingual_gap else None,
        "skipped": dict(bias.skipped),
        **{name: found for name, found in further.items() if found},
    }


def _peer(found: Peer) -> dict[str, Any]:
    mean = {"mean": None if isnan(found.mean) else found.mean}
    languages = {"per_language": dict(found.per_language)} if found.per_language else {}
    return {**mean, **languages, "sensitive": found.sensitive, "topics": len(found.per_topic)}


def _mrc(found: RankCorrelation) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "per_language": dict(found.per_language),
        "per_pair": [[first, second, value] for (first, second), value in found.per_pair.items()],
        "topics": found.topics,
        "missing": found.missing,
        "unscored": found.unscored,
    }


def _awrf(found: Awrf) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "per_language": dict(found.per_language),
        "target": found.target.value,
        "attention": "log",
        "queries": found.queries,
    }


def _mix(found: LanguageMix) -> dict[str, Any]:
    return {
        "query_languages": list(found.query_languages),
        "doc_languages": list(found.doc_languages),
        "shares": found.shares.tolist(),
        "own": found.own,
        "entropy": found.entropy,
        "queries": found.queries,
        "without_hits": found.without_hits,
    }


def _preference(found: Preference) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "per_language": dict(found.per_language),
        "queries": found.queries,
        "left_out": found.left_out,
    }


def _cross_lingual_gap(found: CrossLingualGap) -> dict[str, Any]:
    return {
        "measure": str(found.measure),
        **_gap(found.overall),
        "per_language": {language: _gap(gap) for language, gap in found.per_language.items()},
        "left_out": found.left_out,
    }


def _gap(found: Gap) -> dict[str, Any]:
    return {"same": found.same, "other": found.other, "gap": found.gap, "queries": found.queries}
