"""What a run does with languages: language mix and bias, gathered per run."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import fsum, isnan, log, nan
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.evaluation.crosslingual import (
    CrossLingualGap,
    Gap,
    Preference,
    cross_lingual_gap,
    same_language_preference,
)
from mimo_plugin.evaluation.fairness import (
    Awrf,
    Peer,
    RankCorrelation,
    Similarity,
    Target,
    awrf,
    mrc,
    peer,
    peer_raw,
)
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import Topics, documents_of, languages_of


@dataclass(frozen=True)
class LanguageMix:
    """The languages of the top k.

    own: mean share of hits in the query's own language. entropy: mean entropy of a query's hits over the
    collection's languages, divided by its largest value: 0 where all hits of each query share a language, 1
    where all languages have the same share. shares: (query languages, document languages), the mean over a
    language's queries of the share of their hits; rows add up to 1. queries: those that all this is about;
    without_hits: those that it leaves out.
    """

    own: float
    entropy: float
    query_languages: tuple[str, ...]
    doc_languages: tuple[str, ...]
    shares: NDArray[np.float64]
    queries: int
    without_hits: int


def language_mix(
    run: Run,
    query_langs: Mapping[str, str],
    doc_langs: Mapping[str, str],
    k: int,
    collection_languages: Iterable[str] = (),
) -> LanguageMix:
    """The language mix of the first k hits, of those that there are where they are fewer.

    Every query with a hit counts the same. query_langs: query id -> language, the queries to look at.
    doc_langs: docid -> language, of the whole collection, or of the hits: then `collection_languages` names
    the languages that the collection has, for those without a hit.

    Raises `DataError` where no query has a hit, or a hit's language is not known.
    """
    doc_languages = tuple(sorted({*doc_langs.values(), *collection_languages}))
    code = {language: position for position, language in enumerate(doc_languages)}
    languages = []
    counted = []
    for query_id, language in query_langs.items():
        ranking = run.queries.get(query_id)
        if ranking is not None and len(ranking.docids):
            codes = [code[name] for name in languages_of(ranking.docids[:k], doc_langs)]
            languages.append(language)
            counted.append(np.bincount(codes, minlength=len(doc_languages)) / len(codes))
    if not counted:
        raise DataError(
            f"run {run.name!r} has no hit for any of {len(query_langs):,} queries, expected the "
            "run of these queries"
        )
    shares = np.array(counted)  # (queries, document languages)
    own = [
        row[code[language]] if language in code else 0.0
        for row, language in zip(shares, languages, strict=True)
    ]
    query_languages = tuple(sorted(set(languages)))
    names = np.array(languages)
    return LanguageMix(
        own=fsum(own) / len(own),
        entropy=fsum(_entropies(shares)) / len(shares),
        query_languages=query_languages,
        doc_languages=doc_languages,
        shares=np.array([shares[names == language].mean(axis=0) for language in query_languages]),
        queries=len(shares),
        without_hits=len(query_langs) - len(shares),
    )


def _entropies(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each row over its largest possible value; 0 where there is one language. (n, m) -> (n,)"""
    if shares.shape[1] == 1:
        return np.zeros(len(shares))
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies: NDArray[np.float64] = np.abs(np.sum(shares * logs, axis=1)) / log(shares.shape[1])
    return entropies


CUTOFF = 20
PEER, PEER_RAW, MRC, AWRF = "peer", "peer_raw", "mrc", "awrf"
PREFERENCE, GAP = "same_language_preference", "cross_lingual_gap"

T = TypeVar("T")


@dataclass(frozen=True)
class Cutoffs:
    """Cutoffs at which PEER and MRC are measured besides that of all the rest."""

    peer: tuple[int, ...] = ()
    mrc: tuple[int, ...] = ()

    def deepest(self, cutoff: int) -> int:
        """The deepest of these and the cutoff of all the rest."""
        return max((cutoff, *self.peer, *self.mrc))


def parse_cutoffs(texts: Sequence[str]) -> Cutoffs:
    """Reads `MRC@5,10,20,PEER@20,100`: a number without a name is of the one before it.

    Raises:
        UsageError: with everything that is no such measure.
    """
    found: dict[str, list[int]] = {PEER: [], MRC: []}
    problems = Problems(UsageError)
    name = None
    for item in filter(None, (part.strip() for text in texts for part in text.split(","))):
        matched = re.fullmatch(r"(?:(peer|mrc)@)?([1-9][0-9]{0,8})", item.casefold(), re.ASCII)
        name = (matched and matched[1]) or name
        if matched is None or name is None:
            problems.add(f"--fairness: found {item!r}, expected such as MRC@5,10,20 PEER@20,100")
        else:
            found[name].append(int(matched[2]))
    problems.raise_any()
    return Cutoffs(*(tuple(dict.fromkeys(found[name])) for name in (PEER, MRC)))


@dataclass(frozen=True)
class LanguageBias:
    """Language bias of the first `cutoff` hits; each part says what it holds.

    peer_at, mrc_at: cutoff -> PEER and MRC there, of further cutoffs that were asked for.
    skipped: name of a part that could not be computed -> why, in one line. Such a part is None; of `peer` and
    `peer_raw`, the mean is NaN.
    """

    cutoff: int
    peer: Peer
    peer_raw: Peer
    mrc: RankCorrelation | None
    awrf: Awrf | None
    language_mix: LanguageMix
    same_language_preference: Preference | None
    cross_lingual_gap: CrossLingualGap | None
    skipped: Mapping[str, str]
    peer_at: Mapping[int, Peer]
    mrc_at: Mapping[int, RankCorrelation]


def language_bias(
    run: Run,
    topics: Topics,
    doc_langs: Mapping[str, str],
    *,
    k: int = CUTOFF,
    target: str = Target.RELEVANT,
    collection: Mapping[str, int] | None = None,
    similarity: Similarity | None = None,
    further: Cutoffs = Cutoffs(),
) -> LanguageBias:
    """Measures the language bias of a run, as far as its topics and their judgments allow.

    Args:
        doc_langs: docid -> language, of the whole collection, or of `documents_of(run, topics, k)` with the
            deepest cutoff.
        target: of AWRF, see `Target`.
        collection: language -> number of documents, as an index's manifest has it; None where `doc_langs`
            holds the whole collection. Documents without a language do not count.
        similarity: of a query and documents that its ranking does not hold, see `mrc`.
        further: cutoffs of PEER and MRC besides k.

    Raises:
        UsageError: an unknown target, a cutoff below 1.
        DataError: a document without a language, or in one that the collection does not have; a run without a
            hit for any of the topics.
    """
    chosen = _check(k, target)
    sizes = _sizes(collection, doc_langs, documents_of(run, topics, k))
    topics = topics.listed()
    mix = language_mix(run, topics.query_languages, doc_langs, k, sizes)
    skipped = {}
    if len(sizes) == 1:
        reason = f"all documents are in one language, {min(sizes)!r}, expected two or more to compare"
        skipped = dict.fromkeys((PEER, PEER_RAW, AWRF, PREFERENCE, GAP), reason)

    def attempt(name: str, measure: Callable[[], T]) -> T | None:
        if name in skipped:
            return None
        try:
            return measure()
        except DataError as error:
            skipped[name] = str(error)
            return None

    def compared(name: str, found: Peer, where: str) -> Peer:
        if found.compared:
            return found
        skipped.setdefault(name, f"no topic has relevant documents {where}two languages, which PEER compares")
        return replace(found, mean=nan, per_language={})

    peers = {at: peer(run, topics, doc_langs, at) for at in (k, *further.peer)}
    correlations = {at: attempt(MRC, partial(mrc, run, topics, at, similarity)) for at in (k, *further.mrc)}
    return LanguageBias(
        cutoff=k,
        peer=compared(PEER, peers[k], "in "),
        peer_raw=compared(PEER_RAW, peer_raw(run, topics, doc_langs, k), "of one relevance level in "),
        mrc=correlations[k],
        awrf=attempt(AWRF, lambda: awrf(run, topics, doc_langs, k, chosen, sizes)),
        language_mix=mix,
        same_language_preference=attempt(
            PREFERENCE, lambda: same_language_preference(run, topics, doc_langs, k)
        ),
        cross_lingual_gap=attempt(GAP, lambda: cross_lingual_gap(run, topics, doc_langs, k)),
        skipped=skipped,
        peer_at={at: compared(PEER, peers[at], "in ") for at in further.peer},
        mrc_at={at: found for at in further.mrc if (found := correlations[at]) is not None},
    )


def _check(k: int, target: str) -> Target:
    problems = Problems(UsageError)
    if k < 1:
        problems.add(f"cutoff {k} of the language bias, expected 1 or more")
    if target not in list(Target):
        problems.add(f"unknown target {target!r} of AWRF, expected one of {', '.join(Target)}")
    problems.raise_any()
    return Target(target)


def _sizes(
    collection: Mapping[str, int] | None, doc_langs: Mapping[str, str], needed: set[str]
) -> Mapping[str, int]:
    """The languages of the collection, and how many documents each has. needed: docids of run and qrels."""
    docids = sorted(needed)
    found = languages_of(np.array([docid.encode() for docid in docids], dtype=np.bytes_), doc_langs)
    if "" in found:
        raise DataError(
            f"{found.count('')} of {len(found):,} documents of run and qrels have no language, for example "
            f"{docids[found.index('')]!r}, expected one for each: give the collection's documents a `lang`"
        )
    counts = Counter(doc_langs.values()) if collection is None else collection
    sizes = {name: size for name, size in counts.items() if name and size}
    strange = sorted(set(found) - sizes.keys())
    if strange:
        raise DataError(
            f"run and qrels have documents in {', '.join(strange)}, the collection has none in these but in "
            f"{', '.join(sorted(sizes))}: expected the languages of the collection that was searched"
        )
    return sizes


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
