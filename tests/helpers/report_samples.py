"""Results of reproductions, made up; their evaluation is the real one of made-up scores."""

import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from helpers.evaluation_samples import monolingual, parallel

from mimo_plugin.evaluation.compare import compare_runs, compared_pairs
from mimo_plugin.evaluation.evaluate import Evaluation
from mimo_plugin.evaluation.measures import RunScores, parse_measures
from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.results import CountsResult
from mimo_plugin.evaluation.significance import Plan

DEBIAN = ("cs", "da", "de", "en", "es", "fr", "it", "ja", "ko", "pl", "pt", "ru", "sk", "uk")
MIRACL = (
    "ar",
    "bn",
    "de",
    "en",
    "es",
    "fa",
    "fi",
    "fr",
    "hi",
    "id",
    "ja",
    "ko",
    "ru",
    "sw",
    "te",
    "th",
    "yo",
    "zh",
)
SYSTEMS = ("bm25", "xlco", "mimo", "e5", "bge", "bm25+mimo")
SUBSET = "From a subset: the judged documents and 1,000 distractors a language (seed 42); not comparable."
MEASURES = "ndcg@10,recall@100"


def make_results(
    languages: Sequence[str] = DEBIAN,
    systems: Sequence[str] = SYSTEMS[:3],
    *,
    seed: int = 1,
    setting: str = "mlir",
    subset: bool = False,
    skipped: bool = False,
    test: SignificanceTest | None = SignificanceTest.STUDENT,
    measures: str = MEASURES,
) -> dict[str, Any]:
    """The object of `results.json`. skipped: nothing of language bias and geometry could be computed."""
    rng = np.random.default_rng(seed)
    evaluation = make_evaluation(rng, languages, systems, test, measures, setting == "mlir")
    several = len(languages) > 1
    return {
        "format": "mimo-reproduction",
        "format_version": 1,
        "config": {
            "name": "debian",
            "title": "Debian's package descriptions",
            "setting": setting,
            "note": "Short descriptions are queries, long ones passages.",
            "collections": ["path:data/debian/test"],
            "languages": list(languages),
            "measures": measures.split(","),
            "depth": 1000,
            "fairness_cutoff": 20,
        },
        "subset": {
            "documents": 15_230,
            "judged": 1_230,
            "distractors_per_language": 1000,
            "seed": 42,
            "text": SUBSET,
        }
        if subset
        else None,
        "systems": {name: _system(rng, name) for name in systems},
        "evaluation": evaluation,
        "language_bias": {name: _bias(rng, languages, skipped, several) for name in systems},
        "geometry": _geometry(rng, languages, [name for name in systems if "bm25" not in name], skipped),
        "reference": _reference(rng, languages, measures.split(",")),
        "warnings": ["run 'bm25' has 20 hits a query at most, fewer than the cutoff of recall@100"],
        "provenance": {
            "command": "mimo reproduce eval_configs/debian.yaml --encoder mimo --encoder xlco --output out",
            "date": "2026-11-22T22:18:00+00:00",
            "versions": {"mimo-plugin": "0.1.0", "pyserini": "1.6.0", "torch": "2.13.0"},
            "hardware": {
                "machine": "x86_64",
                "processor": "Some processor",
                "cores": 2,
                "memory_bytes": 8 << 30,
                "device": "cpu",
            },
            "git_commit": "4335999" + "0" * 33,
            "fingerprints": {"collection": "a" * 64, "config": "b" * 64},
        },
    }


def make_per_topic(results: dict[str, Any], hits: int = 10) -> dict[str, Any]:
    """The object of a `topics.json` for these results; its scores are not theirs."""
    rng = np.random.default_rng(3)
    languages = [
        language
        for language, count in results["evaluation"]["topics"]["languages"].items()
        for _ in range(count)
    ]
    query_ids = [f"{language}:{number}" for number, language in enumerate(languages)]
    runs, measures = list(results["evaluation"]["runs"]), results["evaluation"]["measures"]
    scores = {
        run: {measure: rng.random(len(query_ids)).round(4).tolist() for measure in measures} for run in runs
    }
    text = "A program that finds files by their content, and shows them with their neighbours. "
    documents = {
        f"{language}:d{number}": {"language": language, "text": f"{number}: {text * 3}"}
        for language in dict.fromkeys(languages)
        for number in range(20)
    }
    grades = (1.0, 0.0, None)

    def found() -> list[tuple[str, float | None]]:
        chosen = rng.choice(list(documents), hits, replace=False)
        return [(str(docid), grades[rng.integers(3)]) for docid in chosen]

    compared = (runs[0], runs[-1]) if len(runs) > 1 else None
    best, baseline = (scores[run][measures[0]] for run in (runs[-1], runs[0]))
    by_gain = sorted(range(len(query_ids)), key=lambda place: baseline[place] - best[place])
    largest = [query_ids[place] for place in [*by_gain[:3], *by_gain[::-1][:3]]] if compared else []
    return {
        "format": "mimo-reproduction-topics",
        "format_version": 1,
        "fingerprints": results["provenance"]["fingerprints"],
        "asked": 200,
        "seed": 42,
        "query_ids": query_ids,
        "languages": languages,
        "scores": scores,
        "measure": measures[0] if compared else None,
        "compared": compared,
        "largest": largest,
        "topics": {
            query_id: {
                "language": language,
                "text": f"find files {query_id}",
                "relevant": 5,
                "some_relevant": [f"{language}:d1"],
                "hits": {run: found() for run in runs},
            }
            for query_id, language in zip(query_ids, languages, strict=True)
        },
        "documents": documents,
    }


def make_evaluation(
    rng: np.random.Generator,
    languages: Sequence[str],
    systems: Sequence[str],
    test: SignificanceTest | None,
    measures: str,
    together: bool,
) -> dict[str, Any]:
    """What `mimo evaluate --json` would write of random scores, some languages harder than others."""
    sizes = {language: int(rng.integers(8, 30)) for language in languages}
    topics = parallel(languages, 12) if together and len(languages) > 1 else monolingual(sizes)
    chosen = parse_measures(measures)
    (judged,) = parse_measures("judged@10")
    count = len(topics.query_ids)
    hard = rng.uniform(0.3, 0.7, len(languages))[topics.language_of]
    scores = []
    for place, name in enumerate(systems):
        values = {
            measure: np.clip(hard + 0.06 * place + rng.normal(0, 0.15, count), 0, 1) for measure in chosen
        }
        scores.append(
            RunScores(
                name,
                values | {judged: rng.uniform(0.1, 0.4, count)},
                CountsResult(judged=count, retrieved=count - 1, missing=1),
                100,
            )
        )
    baseline = systems[0] if test is not SignificanceTest.TUKEY_HSD and len(systems) > 1 else None
    used = test if len(systems) > 1 else None
    plan = None if used is None else Plan(used, Correction.HOLM, permutations=1000)
    comparisons = []
    if plan is not None:
        pairs = compared_pairs(systems, baseline, used)
        comparisons = compare_runs(scores, topics, chosen, pairs, plan)
    found = Evaluation(topics, chosen, judged, tuple(scores), tuple(comparisons), plan, baseline, ())
    parsed: dict[str, Any] = json.loads(found.result.to_json())
    return parsed


def _system(rng: np.random.Generator, name: str) -> dict[str, Any]:
    kind = "fusion" if "+" in name else "bm25" if name == "bm25" else "dense"
    dense = kind == "dense"
    return {
        "kind": kind,
        "label": name.upper() if kind == "bm25" else name,
        "encoder": f"models/{name}" if dense else None,
        "fingerprint": "".join(rng.choice(list("0123456789abcdef"), 64)) if dense else None,
        "documents": None if kind == "fusion" else 15_230,
        "index_bytes": None if kind == "fusion" else int(rng.integers(10**6, 10**9)),
        "seconds": {} if kind == "fusion" else {"index": float(rng.uniform(5, 9000)), "search": 3.25},
        "parts": name.split("+") if kind == "fusion" else [],
        "details": {"k1": 0.9, "b": 0.4, "analyzers": {"de": "german"}} if kind == "bm25" else {},
    }


def _bias(rng: np.random.Generator, languages: Sequence[str], skipped: bool, several: bool) -> dict[str, Any]:
    def per_language(low: float, high: float) -> dict[str, float]:
        return {language: float(rng.uniform(low, high)) for language in languages}

    own = rng.uniform(0.1, 0.8)
    size = len(languages)
    shares = own * np.eye(size) + (1 - own) * rng.dirichlet(np.ones(size), size)
    mix = {
        "query_languages": list(languages),
        "doc_languages": list(languages),
        "shares": (shares / shares.sum(axis=1, keepdims=True)).tolist(),
        "own": float(own),
        "entropy": float(rng.uniform(0.2, 0.9)),
        "queries": 200,
        "without_hits": 1,
    }
    nothing = {"mean": None, "sensitive": 0, "topics": 200}
    if skipped or not several:
        reason = "all documents are in one language, expected two or more to compare"
        names = ("peer", "peer_raw", "mrc", "awrf", "same_language_preference", "cross_lingual_gap")
        empty = dict.fromkeys(names) | {"peer": nothing, "peer_raw": nothing}
        return {"cutoff": 20, **empty, "language_mix": mix, "skipped": dict.fromkeys(names, reason)}
    gaps = {language: {"same": 0.5, "other": 0.4, "gap": 0.5 - 0.4, "queries": 7} for language in languages}
    return {
        "cutoff": 20,
        "peer": {"mean": float(rng.uniform(0.3, 0.9)), "sensitive": 60, "topics": 200},
        "peer_raw": {"mean": float(rng.uniform(0.3, 0.9)), "sensitive": 60, "topics": 200},
        "mrc": {
            "mean": float(rng.uniform(20, 80)),
            "per_language": per_language(20, 80),
            "per_pair": [[a, b, float(rng.uniform(20, 80))] for a, b in combinations(languages, 2)],
            "topics": 190,
            "missing": 2,
            "unscored": 0.125,
        },
        "awrf": {
            "mean": float(rng.uniform(0.6, 1)),
            "per_language": per_language(0.6, 1),
            "target": "relevant",
            "attention": "log",
            "queries": 199,
        },
        "language_mix": mix,
        "same_language_preference": {
            "mean": float(rng.uniform(0.8, 4)),
            "per_language": per_language(0.8, 4),
            "queries": 199,
            "left_out": 1,
        },
        "cross_lingual_gap": {
            "measure": "ndcg@20",
            "same": 0.51234567,
            "other": 0.4,
            "gap": 0.51234567 - 0.4,
            "per_language": gaps,
            "queries": 199,
            "left_out": 1,
        },
        "skipped": {},
    }


def _geometry(
    rng: np.random.Generator, languages: Sequence[str], encoders: Sequence[str], skipped: bool
) -> dict[str, Any] | None:
    if not encoders:
        return None
    alone = skipped or len(languages) == 1
    why = {"alignment": "no text is there in two languages, expected parallel texts"}
    return {
        "texts": {
            "collections": ["path:data/debian/test"],
            "role": "documents",
            "groups": 12,
            "vectors": 12 * len(languages),
            "languages": dict.fromkeys(languages, 12),
            "seed": 42,
        },
        "encoders": {label: _encoder(rng, label, languages, alone) for label in encoders},
        "skipped": why if alone else {},
    }


def _encoder(rng: np.random.Generator, label: str, languages: Sequence[str], alone: bool) -> dict[str, Any]:
    size = len(languages)
    centres = rng.normal(size=(size, 2))
    points = [
        [*(centres[language] + rng.normal(0, 0.3, 2)).round(5).tolist(), language, text]
        for language in range(size)
        for text in range(12)
    ]
    distances = rng.uniform(0.1, 1, (size, size))
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    start = float(rng.uniform(0.9, 1.4))
    return {
        "name": f"models/{label}",
        "fingerprint": "c" * 64,
        "dimension": 384,
        "alignment": None if alone else start / 4,
        "pair_alignment": []
        if alone
        else [[a, b, float(rng.uniform(0.1, 1))] for a, b in combinations(languages, 2)],
        "uniformity": float(rng.uniform(-3.5, -2)),
        "uniformity_per_language": {language: float(rng.uniform(-3.5, -2)) for language in languages},
        "separability": None
        if alone
        else {
            "centroid": float(rng.uniform(0.2, 1)),
            "knn": float(rng.uniform(0.2, 1)),
            "neighbours": 5,
            "folds": 5,
            "chance": 1 / size,
        },
        "centroid_distances": {"languages": list(languages), "distances": distances.tolist()},
        "projection": {
            "method": "pca",
            "explained": [0.121, 0.0875],
            "languages": list(languages),
            "points": points,
        },
        "trail": []
        if alone or label != "mimo"
        else [
            {"step": step, "alignment": start / (1 + step / 300), "uniformity": -1.0 - step / 600}
            for step in (0, 300, 600, 900)
        ],
    }


def _reference(
    rng: np.random.Generator, languages: Sequence[str], measures: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {
            "system": "mDPR",
            "measure": measures[0],
            "macro": 0.418,
            "per_language": {language: round(rng.uniform(0.2, 0.6), 3) for language in languages},
            "source": "Zhang et al., MIRACL (TACL 2023), table 5",
            "url": "https://doi.org/10.1162/tacl_a_00595",
            "note": "without title",
        },
        {
            "system": "Hybrid",
            "measure": measures[-1],
            "macro": 0.941,
            "per_language": {},
            "source": "Another paper",
            "url": None,
            "note": None,
        },
    ]
