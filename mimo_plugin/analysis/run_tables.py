"""The languages that runs bring back, as tables."""

from collections.abc import Iterator, Mapping

from mimo_plugin.analysis.tables import matrix
from mimo_plugin.evaluation.fairness import Peer, RankCorrelation
from mimo_plugin.evaluation.language_bias import LanguageBias
from mimo_plugin.evaluation.tables import MISSING, Table


def make_run_tables(biases: Mapping[str, LanguageBias]) -> list[Table]:
    """All runs, then the language mix of each: rows are the queries' languages, columns the hits'."""
    cutoff = max(bias.cutoff for bias in biases.values())
    rows = []
    notes = [
        "own language, entropy: of the hits. PEER, AWRF: 1 is fair. MRC: 100 is the same ranking whatever "
        "the query's language. preference: 1 is none. gap: nDCG of same-language documents less that of "
        "others."
    ]
    tables = []
    for name, bias in biases.items():
        preference, gap = bias.same_language_preference, bias.cross_lingual_gap
        values = (
            bias.language_mix.own,
            bias.language_mix.entropy,
            bias.peer.mean,
            bias.awrf.mean if bias.awrf else None,
            bias.mrc.mean if bias.mrc else None,
            preference.mean if preference else None,
            gap.overall.gap if gap else None,
        )
        rows.append([name, *(_cell(value) for value in values)])
        notes += [f"{name}, {what}: {why}." for what, why in bias.skipped.items()]
        mix = bias.language_mix
        title = f"{name}: languages of the first {cutoff} hits, a row for each language of the queries"
        tables.append(matrix(title, mix.query_languages, mix.doc_languages, mix.shares))
    headers = ["run", "own language", "entropy", "PEER", "AWRF", "MRC", "preference", "gap"]
    first = Table(f"language bias of the first {cutoff} hits", headers, rows, notes=tuple(notes))
    return [first, *_fairness_tables(biases), *tables]


def _fairness_tables(biases: Mapping[str, LanguageBias]) -> Iterator[Table]:
    """MRC and PEER by query language at each further cutoff, a row a run."""
    measured: dict[str, dict[str, Peer | RankCorrelation]] = {}
    for name, bias in biases.items():
        for at, correlation in bias.mrc_at.items():
            measured.setdefault(f"MRC@{at}", {})[name] = correlation
        for at, peer in bias.peer_at.items():
            measured.setdefault(f"PEER@{at}", {})[name] = peer
    for title, found in measured.items():
        languages = sorted({language for one in found.values() for language in one.per_language})
        rows = [
            [name, _cell(one.mean), *(_cell(one.per_language.get(language)) for language in languages)]
            for name, one in found.items()
        ]
        yield Table(f"{title} by query language", ["run", "mean", *languages], rows)


def _cell(value: float | None) -> str:
    # PEER is not a number where no topic can be compared.
    return MISSING if value is None or value != value else f"{value:.4f}"
