"""All that is measured of how a run treats languages."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from typing import TypeVar

import numpy as np

from mimo_plugin.errors import DataError, Problems, UsageError
from mimo_plugin.evaluation.awrf import Awrf, Target, awrf
from mimo_plugin.evaluation.cross_lingual_gap import CrossLingualGap, cross_lingual_gap
from mimo_plugin.evaluation.doc_languages import documents_of, languages_of
from mimo_plugin.evaluation.fairness import Peer, RankCorrelation, Similarity, mrc, peer, peer_raw
from mimo_plugin.evaluation.language_mix import LanguageMix, language_mix
from mimo_plugin.evaluation.preference import Preference, same_language_preference
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import Topics

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
