"""Language bias, geometry and systems as tables."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mimo_plugin.core.files import size_text
from mimo_plugin.evaluation.results import (
    BenchmarkResults,
    BiasResult,
    EncoderResult,
    GeometryResult,
    LanguageMixResult,
    MrcResult,
    PeerResult,
    SystemResult,
)
from mimo_plugin.evaluation.tables import MISSING
from mimo_plugin.report.table import Cell, Column, Note, Part, Table, count, number, words
from mimo_plugin.report.tables import MONOLINGUAL, labels, measure_name, system_names

_CALLED = {
    "peer": "PEER",
    "peer_raw": "PEER, raw ranks",
    "mrc": "MRC",
    "awrf": "AWRF",
    "language_mix": "language mix",
    "same_language_preference": "same-language preference",
    "cross_lingual_gap": "cross-lingual gap",
}
_TARGETS = {
    "relevant": "the languages of the query's relevant documents",
    "collection": "the languages of the collection",
    "uniform": "all languages alike",
}
_OWN_ONLY = (
    "Here documents are judged in the query's language only: it is 1 at most and says nothing of preference."
)


def bias_table(results: BenchmarkResults) -> Table:
    """A row a run; what is undefined has its reason below."""
    names, found = system_names(results), results.language_bias
    cutoffs = sorted({bias.cutoff for bias in found.values()})
    at = f"@{cutoffs[0]}" if len(cutoffs) == 1 else "@k"
    columns = [
        Column("run"),
        *map(Column, (f"PEER{at}", f"PEER{at}, raw ranks", f"MRC{at}", "AWRF")),
        Column("same-language preference", apart=True),
        *map(Column, ("own language", "entropy")),
        *(Column(name, "cross-lingual gap", apart=name == "same") for name in ("same", "other", "gap")),
    ]
    if len(cutoffs) > 1:
        columns.insert(1, Column("k"))
    rows = []
    for name, bias in found.items():
        row = [words(names[name], name)]
        if len(cutoffs) > 1:
            row.append(Cell(str(bias.cutoff), bias.cutoff))
        rows.append(row + _cells(bias))
    notes = [*map(Note, _reading(results)), *(Note(text) for text in _skipped(results))]
    title = f"Language bias of the first {cutoffs[0] if len(cutoffs) == 1 else 'k'} hits"
    return Table("language-bias", title, columns, [Part(rows)], notes, labels(results))


def _cells(bias: BiasResult) -> list[Cell]:
    mix, gap = bias.language_mix, bias.cross_lingual_gap
    return [
        number(bias.peer.mean if bias.peer else None),
        number(bias.peer_raw.mean if bias.peer_raw else None),
        number(bias.mrc.mean if bias.mrc else None, ".2f"),
        number(bias.awrf.mean if bias.awrf else None),
        number(bias.same_language_preference.mean if bias.same_language_preference else None, ".2f"),
        number(mix.own if mix else None),
        number(mix.entropy if mix else None),
        number(gap.same if gap else None),
        number(gap.other if gap else None),
        number(gap.gap if gap else None, "+.4f"),
    ]


def _reading(results: BenchmarkResults) -> Iterator[str]:
    """A sentence or two for each quantity that is there."""
    found = results.language_bias.values()
    peers = [bias.peer for bias in found if bias.peer and bias.peer.mean is not None]
    if peers:
        yield (
            "PEER: 1 where relevant documents rank alike whatever their language, near 0 where language "
            "decides; those below the cutoff share the rank after it. A run that finds nothing has 1: read "
            f"it beside the scores. It can tell orders apart in {_span([peer.sensitive for peer in peers])} "
            f"of {_span([peer.topics for peer in peers])} topics."
        )
    if any(bias.peer_raw and bias.peer_raw.mean is not None for bias in found):
        yield (
            "PEER, raw ranks: its authors' definition, one relevance level at a time on the ranks "
            "themselves. Not to be compared with the other."
        )
    mrcs = [bias.mrc for bias in found if bias.mrc and bias.mrc.mean is not None]
    if mrcs:
        unscored = max(one.unscored or 0.0 for one in mrcs)
        yield (
            "MRC: 100 where a query finds the same documents in the same order in every language it is asked "
            f"in, 0 where the orders have nothing in common; over {_span([one.topics for one in mrcs])} "
            f"topics with a version in another language. {_unscored(unscored)}"
        ).strip()
    for target in dict.fromkeys(bias.awrf.target for bias in found if bias.awrf):
        yield (
            f"AWRF, target {target!r}: 1 where the attention that each language gets (discounted by the "
            f"logarithm of the rank) is shared out like {_TARGETS.get(target, target)}, 0.307 where they "
            "share no language. Whether hits are relevant plays no part."
        )
    if any(bias.same_language_preference for bias in found):
        yield (
            "Same-language preference: share of hits in the query's own language over that share among the "
            "relevant documents; 1 is no preference, 2 twice as many as there should be. "
            + _OWN_ONLY
            * (results.config.setting in MONOLINGUAL)
        ).strip()
    if any(bias.language_mix for bias in found):
        yield (
            "Own language: share of hits in the query's own language. Entropy: 0 where all hits of a query "
            "share a language, 1 where all languages have the same share."
        )
    for measure in dict.fromkeys(bias.cross_lingual_gap.measure for bias in found if bias.cross_lingual_gap):
        yield (
            f"Cross-lingual gap: {measure_name(measure)} of the relevant documents in the query's language, "
            "with the other relevant ones taken out (same), the reverse (other), and same minus other: above "
            "0 the own language is found better."
        )


def _unscored(share: float) -> str:
    if share == 0:
        return "All compared documents had a score, so it is exact."
    return (
        f"Up to {100 * share:.1f} % of the compared documents were too deep to have a score, which lowers it."
    )


def _skipped(results: BenchmarkResults) -> Iterator[str]:
    """What is not defined, and why: once for all runs that share a reason."""
    names = system_names(results)
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, bias in results.language_bias.items():
        for what, why in bias.skipped.items():
            reasons.setdefault((_CALLED.get(what, what), why), []).append(names[name])
    for (what, why), runs in reasons.items():
        where = "" if len(runs) == len(results.language_bias) else f" of {', '.join(runs)}"
        yield f"Skipped: {what}{where}: {why}"


def cutoffs_table(results: BenchmarkResults) -> Table | None:
    """MRC and PEER at further cutoffs, a row a run; None where none were asked for."""
    found = results.language_bias
    columns: list[Column] = []
    rows = {name: [words(label, name)] for name, label in system_names(results).items() if name in found}
    for kind, form in (("MRC", ".2f"), ("PEER", ".4f")):
        for at in _further(results, kind):
            columns.append(Column(f"{kind}@{at}"))
            for name, bias in found.items():
                one = _at(bias, kind).get(at)
                rows[name].append(number(one.mean if one else None, form))
    if not columns:
        return None
    title = "MRC and PEER at several cutoffs"
    return Table(
        "fairness-cutoffs", title, [Column("run"), *columns], [Part(list(rows.values()))], (), labels(results)
    )


def _at(bias: BiasResult, kind: str) -> Mapping[int, PeerResult] | Mapping[int, MrcResult]:
    return bias.mrc_at if kind == "MRC" else bias.peer_at


def _further(results: BenchmarkResults, kind: str) -> list[int]:
    return sorted({at for bias in results.language_bias.values() for at in _at(bias, kind)})


def _further_by_language(
    results: BenchmarkResults, kind: str, form: str
) -> Iterator[tuple[str, str, str, Callable[[BiasResult], Mapping[str, float | None]]]]:
    for at in _further(results, kind):

        def values(bias: BiasResult, at: int = at) -> Mapping[str, float | None]:
            found = _at(bias, kind).get(at)
            return found.per_language if found else {}

        yield f"{kind.lower()}-{at}-by-language", f"{kind}@{at}", form, values


def bias_by_language(results: BenchmarkResults) -> Iterator[Table]:
    """MRC, PEER, AWRF, same-language preference and gap, language by run, where there is one."""
    kinds: list[tuple[str, str, str, Callable[[BiasResult], Mapping[str, float | None]]]] = [
        ("mrc-by-language", "MRC", ".2f", lambda bias: bias.mrc.per_language if bias.mrc else {}),
        *_further_by_language(results, "MRC", ".2f"),
        ("peer-by-language", "PEER", ".4f", lambda bias: bias.peer.per_language if bias.peer else {}),
        *_further_by_language(results, "PEER", ".4f"),
        ("awrf-by-language", "AWRF", ".4f", lambda bias: bias.awrf.per_language if bias.awrf else {}),
        ("preference-by-language", "Same-language preference", ".2f", _preference),
        ("gap-by-language", "Cross-lingual gap", "+.4f", _gap),
    ]
    names = system_names(results)
    for name, title, form, values_of in kinds:
        by_run = {run: values_of(bias) for run, bias in results.language_bias.items()}
        languages = sorted({language for values in by_run.values() for language in values})
        if not languages:
            continue
        rows = [
            [words(language), *(number(values.get(language), form) for values in by_run.values())]
            for language in languages
        ]
        columns = [Column("query language"), *(Column(names[run]) for run in by_run)]
        yield Table(name, f"{title} by query language", columns, [Part(rows)], (), labels(results))


def _preference(bias: BiasResult) -> Mapping[str, float | None]:
    return bias.same_language_preference.per_language if bias.same_language_preference else {}


def _gap(bias: BiasResult) -> Mapping[str, float | None]:
    gap = bias.cross_lingual_gap
    return {language: one.gap for language, one in gap.per_language.items()} if gap else {}


def mix_table(results: BenchmarkResults, name: str, file: str, mix: LanguageMixResult) -> Table:
    """What the heat map shows."""
    columns = [
        Column("query language"),
        *(Column(language, "document language") for language in mix.doc_languages),
    ]
    rows = [
        [words(language), *(number(share) for share in row)]
        for language, row in zip(mix.query_languages, mix.shares, strict=True)
    ]
    left_out = f" Without a hit, and left out: {mix.without_hits:,}." if mix.without_hits else ""
    note = f"{mix.queries:,} queries.{left_out} Rows add up to 1."
    title = f"{system_names(results)[name]}: share of the hits in each language"
    return Table(file, title, columns, [Part(rows)], [Note(note)], labels(results))


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def geometry_table(results: BenchmarkResults, geometry: GeometryResult) -> Table:
    """A row an encoder; what is undefined has its reason below."""
    columns = (
        Column("encoder"),
        *map(Column, ("dimension", "alignment", "uniformity")),
        Column("nearest centroid", "telling languages apart", apart=True),
        *(Column(name, "telling languages apart") for name in ("k nearest", "chance")),
    )
    rows = [_geometry_row(label, encoder) for label, encoder in geometry.encoders.items()]
    texts = geometry.texts
    parallel = "" if "alignment" in geometry.skipped else "parallel "
    notes = [
        f"{texts.vectors:,} vectors of {texts.groups:,} {parallel}texts ({texts.role}) in "
        f"{len(texts.languages)} languages of {', '.join(texts.collections)}; seed {texts.seed}.",
        "Alignment: mean squared distance between language versions of a text, 0 is best, 4 the most there "
        "can be. Uniformity: log mean exp(−2 distance²) over distinct pairs, lower is more even; the lower "
        "left corner of the plane is the best.",
        "Telling languages apart: cross-validated accuracy of guessing the language from the vector. At "
        "chance, vectors say nothing of their language.",
        *(f"On {what}: {why}." for what, why in geometry.skipped.items()),
    ]
    return Table(
        "geometry", "Geometry of the encoders", columns, [Part(rows)], list(map(Note, notes)), labels(results)
    )


def _geometry_row(label: str, encoder: EncoderResult) -> list[Cell]:
    probe = encoder.separability
    return [
        words(label),
        count(encoder.dimension),
        number(encoder.alignment),
        number(encoder.uniformity),
        number(probe.centroid if probe else None),
        number(probe.knn if probe else None),
        number(probe.chance if probe else None),
    ]


def geometry_details(results: BenchmarkResults, geometry: GeometryResult) -> Iterator[Table]:
    """Uniformity by language, alignment by pair, checkpoints: those that there are."""
    encoders = geometry.encoders
    uniform = {label: encoder.uniformity_per_language or {} for label, encoder in encoders.items()}
    pairs = {
        label: {(a, b): value for a, b, value in encoder.pair_alignment or ()}
        for label, encoder in encoders.items()
    }
    names = [Column(label) for label in encoders]
    languages = sorted({language for values in uniform.values() for language in values})
    if languages:
        rows = [
            [words(language), *(number(values.get(language)) for values in uniform.values())]
            for language in languages
        ]
        yield _table(
            results, "uniformity-by-language", "Uniformity by language", [Column("language"), *names], rows
        )
    both = sorted({pair for values in pairs.values() for pair in values})
    if both:
        rows = [
            [words(f"{a} – {b}"), *(number(values.get((a, b))) for values in pairs.values())] for a, b in both
        ]
        title = "Alignment by pair of languages"
        yield _table(results, "alignment-by-pair", title, [Column("languages"), *names], rows)
    for label, encoder in encoders.items():
        distances = encoder.centroid_distances
        if distances:
            rows = [
                [words(language), *map(number, row)]
                for language, row in zip(distances.languages, distances.distances, strict=True)
            ]
            columns = [Column("language"), *map(Column, distances.languages)]
            title = f"{label}: distances between the centroids of languages"
            yield _table(results, f"centroids {label}", title, columns, rows)
    for label, encoder in encoders.items():
        if encoder.trail:
            rows = [[count(one.step), number(one.alignment), number(one.uniformity)] for one in encoder.trail]
            columns = [Column("step"), Column("alignment"), Column("uniformity")]
            yield _table(
                results, f"checkpoints {label}", f"{label}: checkpoints of the training run", columns, rows
            )


def _table(
    results: BenchmarkResults, name: str, title: str, columns: list[Column], rows: list[list[Cell]]
) -> Table:
    return Table(name, title, columns, [Part(rows)], (), labels(results))


_MINUTE, _HOUR = 60, 3600


def systems_table(results: BenchmarkResults) -> Table:
    """A row a system."""
    names = system_names(results)
    columns = [
        Column("system"),
        *(Column(name, text=True) for name in ("kind", "made of", "fingerprint")),
        *map(Column, ("documents", "index size", "time")),
    ]
    rows = [_system_row(name, system, names) for name, system in results.systems.items()]
    return Table("systems", "Systems", columns, [Part(rows)], list(_details(results)), labels(results))


def _details(results: BenchmarkResults) -> Iterator[Note]:
    names = system_names(results)
    for name, system in results.systems.items():
        said = [
            f"{what} {_said(value)}"
            for what, value in system.details.items()
            if value not in (None, "", {}, [])
        ]
        if said:
            yield Note(f"{names[name]}: {', '.join(said)}.")


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key} {_said(part)}' for key, part in value.items())})"
    if isinstance(value, list):
        return f"({', '.join(map(_said, value))})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _system_row(name: str, system: SystemResult, names: dict[str, str]) -> list[Cell]:
    parts = " + ".join(names.get(part, part) for part in system.parts)
    size = (
        Cell(MISSING)
        if system.index_bytes is None
        else Cell(size_text(system.index_bytes), system.index_bytes)
    )
    total = sum(system.seconds.values())
    return [
        words(names[name], name),
        words(system.kind),
        words(system.encoder or parts or MISSING),
        Cell((system.fingerprint or MISSING)[:12], system.fingerprint),
        count(system.documents),
        size,
        Cell(duration(total), total) if system.seconds else Cell(MISSING),
    ]


def times_table(results: BenchmarkResults) -> Table | None:
    """Seconds of each step, where any was timed."""
    names = system_names(results)
    steps = list(dict.fromkeys(step for system in results.systems.values() for step in system.seconds))
    if not steps:
        return None
    rows = [
        [
            words(names[name], name),
            *(
                Cell(f"{system.seconds[step]:,.1f}", system.seconds[step])
                if step in system.seconds
                else Cell(MISSING)
                for step in steps
            ),
        ]
        for name, system in results.systems.items()
    ]
    columns = [Column("system"), *map(Column, steps)]
    return Table("times", "Seconds of each step", columns, [Part(rows)], (), labels(results))


def provenance(results: BenchmarkResults) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Lists of names and values, each with a heading."""
    made = results.provenance
    hardware = made.hardware
    run = [("Date", _date(made.date))]
    if made.git_commit:
        run.append(("Commit", made.git_commit))
    yield "Run", run
    machine = [
        ("Machine", hardware.machine),
        ("Processor", hardware.processor),
        ("Cores", None if hardware.cores is None else str(hardware.cores)),
        ("Memory", None if hardware.memory_bytes is None else size_text(hardware.memory_bytes)),
        ("Device", hardware.device),
    ]
    yield "Hardware", [(name, value) for name, value in machine if value]
    yield "Versions", [(name, version or MISSING) for name, version in made.versions.items()]
    prints = [(name, value or MISSING) for name, value in made.fingerprints.items()]
    names = system_names(results)
    prints += [
        (names[name], system.fingerprint) for name, system in results.systems.items() if system.fingerprint
    ]
    yield "Fingerprints", prints


def duration(seconds: float) -> str:
    """For a reader: 5400 -> "1 h 30 min"."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR / _MINUTE:.0f} min"


def _date(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text
