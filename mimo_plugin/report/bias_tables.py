"""Tables of language bias, geometry, systems and provenance."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from mimo_plugin.core.files import size_text
from mimo_plugin.core.table import (
    DOWN,
    MISSING,
    TO_0,
    TO_1,
    UP,
    Cell,
    Column,
    Note,
    Table,
    count,
    number,
    words,
)
from mimo_plugin.evaluation.results import (
    BenchmarkResults,
    BiasResult,
    EncoderResult,
    GeometryResult,
)
from mimo_plugin.evaluation.tables import result_marks
from mimo_plugin.report.tables import MONOLINGUAL, labels, measure_name, system_names


class Biases(NamedTuple):
    """Language bias of several runs.

    Attributes:
        found: run -> its language bias.
        names: run -> its name in tables.
        labels: texts that must accompany every number.
        own_only: whether documents are judged in the query's language only.
        marks, notes: of languages that encoders were not trained on.
    """

    found: Mapping[str, BiasResult]
    names: Mapping[str, str]
    labels: Sequence[str] = ()
    own_only: bool = False
    marks: Mapping[str, str] = {}
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, results: BenchmarkResults) -> "Biases":
        own_only = results.config.setting in MONOLINGUAL
        names = system_names(results)
        marks, notes = result_marks(results.evaluation, names)
        return cls(results.language_bias, names, labels(results), own_only, marks, notes)


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


def bias_table(biases: Biases) -> Table:
    """A row per run, at least one, all with one cutoff; notes give the reasons of undefined values."""
    cutoff = next(iter(biases.found.values())).cutoff
    columns = [
        Column("run"),
        *(
            Column(name, better=UP)
            for name in (f"PEER@{cutoff}", f"PEER@{cutoff}, raw ranks", f"MRC@{cutoff}", "AWRF")
        ),
        Column("same-language preference", apart=True, better=TO_1),
        *map(Column, ("own language", "entropy")),
        *(
            Column(name, "cross-lingual gap", apart=name == "same", better=TO_0 if name == "gap" else UP)
            for name in ("same", "other", "gap")
        ),
    ]
    rows = [[words(biases.names[name], name), *_cells(bias)] for name, bias in biases.found.items()]
    notes = [*_reading(list(biases.found.values()), biases.own_only), *_skipped(biases)]
    title = f"Language bias of the first {cutoff} hits"
    return Table.of(title, columns, rows, notes, name="language-bias", labels=biases.labels)


def _cells(bias: BiasResult) -> list[Cell]:
    mix, gap, preference = bias.language_mix, bias.cross_lingual_gap, bias.same_language_preference
    return [
        number(bias.peer.mean),
        number(bias.peer_raw.mean),
        number(bias.mrc.mean if bias.mrc else None, ".2f"),
        number(bias.awrf.mean if bias.awrf else None),
        number(preference.mean if preference else None, ".2f"),
        number(mix.own),
        number(mix.entropy),
        number(gap.same if gap else None),
        number(gap.other if gap else None),
        number(gap.gap if gap else None, "+.4f"),
    ]


def _reading(found: Sequence[BiasResult], own_only: bool) -> Iterator[str]:
    """A short explanation of each measure in the table."""
    peers = [bias.peer for bias in found if bias.peer.mean is not None]
    if peers:
        yield (
            "PEER: 1 if relevant documents rank alike in all languages, near 0 if language decides the rank; "
            "documents below the cutoff share the rank after it. A run that finds nothing has 1, so read "
            f"PEER with the scores. It depends on the order in {_span([peer.sensitive for peer in peers])} "
            f"of {_span([peer.topics for peer in peers])} topics."
        )
    if any(bias.peer_raw.mean is not None for bias in found):
        yield (
            "PEER, raw ranks: its authors' definition, on the run's own ranks and one relevance level at a "
            "time. It does not compare with PEER."
        )
    mrcs = [bias.mrc for bias in found if bias.mrc and bias.mrc.mean is not None]
    if mrcs:
        unscored = max(one.unscored or 0.0 for one in mrcs)
        yield (
            "MRC: 100 if a query finds the same documents in the same order in every language, 0 if the "
            f"orders have nothing in common; over {_span([one.topics for one in mrcs])} topics with a "
            "version in another language. "
        ) + (
            f"Up to {100 * unscored:.1f} % of the compared documents were too deep to have a score, which "
            "lowers it."
            if unscored
            else "All compared documents had a score, so it is exact."
        )
    for target in dict.fromkeys(bias.awrf.target for bias in found if bias.awrf):
        yield (
            f"AWRF, target {target!r}: 1 if the attention to languages (discounted by the logarithm of the "
            f"rank) is distributed like {_TARGETS.get(target, target)}, 0.307 if they share no language. "
            "The relevance of hits plays no part."
        )
    if any(bias.same_language_preference for bias in found):
        yield (
            "Same-language preference: share of hits in the query's own language over that share among the "
            "relevant documents; 1 is no preference, 2 is twice as many as expected."
        ) + (
            " Here documents are judged in the query's language only: the value is at most 1 and says "
            "nothing about preference."
            if own_only
            else ""
        )
    yield (
        "Own language: share of hits in the query's own language. Entropy: 0 if all hits of a query are in "
        "one language, 1 if all languages have the same share."
    )
    for measure in dict.fromkeys(bias.cross_lingual_gap.measure for bias in found if bias.cross_lingual_gap):
        yield (
            f"Cross-lingual gap: {measure_name(measure)} for relevant documents in the query's language "
            "(same), for those in other languages (other), each without the others, and same minus other. "
            "Above 0, the query's own language is found better."
        )


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _skipped(biases: Biases) -> Iterator[str]:
    """Undefined measures and why, once for all runs with the same reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, bias in biases.found.items():
        for what, why in bias.skipped.items():
            reasons.setdefault((_CALLED.get(what, what), why), []).append(biases.names[name])
    for (what, why), runs in reasons.items():
        where = "" if len(runs) == len(biases.found) else f" of {', '.join(runs)}"
        yield f"Skipped: {what}{where}: {why}"


# Measures with values per language: attribute of `BiasResult`, part of a file's name, title, format, which
# values are better.
_BY_LANGUAGE = (
    ("mrc", "mrc", "MRC", ".2f", UP),
    ("peer", "peer", "PEER", ".4f", UP),
    ("awrf", "awrf", "AWRF", ".4f", UP),
    ("same_language_preference", "preference", "Same-language preference", ".2f", TO_1),
    ("cross_lingual_gap", "gap", "Cross-lingual gap", "+.4f", TO_0),
)


def _further(biases: Biases, attribute: str) -> dict[int, dict[str, Any]]:
    """Further cutoff -> run -> result."""
    found: dict[int, dict[str, Any]] = {}
    for run, bias in biases.found.items():
        for at, one in getattr(bias, f"{attribute}_at", {}).items():
            found.setdefault(at, {})[run] = one
    return dict(sorted(found.items()))


def cutoffs_table(biases: Biases) -> Table | None:
    """MRC and PEER at further cutoffs, a row per run; None without further cutoffs."""
    columns = [Column("run")]
    rows = {run: [words(biases.names[run], run)] for run in biases.found}
    for attribute, _, title, form, better in _BY_LANGUAGE:
        for at, by_run in _further(biases, attribute).items():
            columns.append(Column(f"{title}@{at}", better=better))
            for run, row in rows.items():
                row.append(number(by_run[run].mean if run in by_run else None, form))
    if len(columns) == 1:
        return None
    title = "MRC and PEER at several cutoffs"
    return Table.of(title, columns, rows.values(), name="fairness-cutoffs", labels=biases.labels)


def bias_by_language(biases: Biases, *, further_only: bool = False) -> Iterator[Table]:
    """MRC, PEER, AWRF, same-language preference and gap as tables, languages by runs, where defined.

    Args:
        further_only: only MRC and PEER at further cutoffs.
    """
    for attribute, name, title, form, better in _BY_LANGUAGE:
        if not further_only:
            by_run = {run: getattr(bias, attribute) for run, bias in biases.found.items()}
            yield from _by_language(biases, name, title, form, better, by_run)
        for at, by_run in _further(biases, attribute).items():
            yield from _by_language(biases, f"{name}-{at}", f"{title}@{at}", form, better, by_run)


def _by_language(
    biases: Biases, name: str, title: str, form: str, better: str, by_run: Mapping[str, Any]
) -> Iterator[Table]:
    columns = [by_run[run].per_language if by_run.get(run) else {} for run in biases.found]
    languages = sorted({language for values in columns for language in values})
    rows = []
    for language in languages:
        cells = [values.get(language) for values in columns]
        shown = words(f"{language}{biases.marks.get(language, '')}", language)
        rows.append([shown, *(number(getattr(cell, "gap", cell), form) for cell in cells)])
    if rows:
        headers = [
            Column("query language"),
            *(Column(biases.names[run], better=better) for run in biases.found),
        ]
        title = f"{title} by query language"
        notes = [Note(note, repeated=True) for note in biases.notes]
        yield Table.of(title, headers, rows, notes, name=f"{name}-by-language", labels=biases.labels)


def mix_table(biases: Biases, run: str, file: str) -> Table:
    """The shares in the heat map of a run."""
    mix = biases.found[run].language_mix
    rows = [
        [words(language), *map(number, row)]
        for language, row in zip(mix.query_languages, mix.shares, strict=True)
    ]
    left_out = f" Left out without a hit: {mix.without_hits:,}." if mix.without_hits else ""
    return Table.of(
        f"{biases.names[run]}: share of the hits in each language",
        ["query language", *(Column(language, "document language") for language in mix.doc_languages)],
        rows,
        [f"{mix.queries:,} queries.{left_out} Rows add up to 1."],
        name=file,
        labels=biases.labels,
    )


def geometry_table(geometry: GeometryResult, labels: Sequence[str] = ()) -> Table:
    """A row per encoder; notes give the reasons of undefined values."""
    group = "telling languages apart"
    columns = [
        *map(Column, ("encoder", "dimension")),
        *(Column(name, better=DOWN) for name in ("alignment", "uniformity")),
        *(
            Column(name, group, apart=not place, better="" if name == "chance" else DOWN)
            for place, name in enumerate(_PROBES)
        ),
    ]
    texts = geometry.texts
    parallel = "" if "alignment" in geometry.skipped else "parallel "
    probes = [encoder.separability for encoder in geometry.encoders.values() if encoder.separability]
    folds = f" ({probes[0].folds} folds, k = {probes[0].neighbours})" if probes else ""
    notes = [
        f"{texts.vectors:,} vectors of {texts.groups:,} {parallel}texts ({texts.role}) in "
        f"{len(texts.languages)} languages of {', '.join(texts.collections)}; seed {texts.seed}.",
        "Alignment: mean squared distance between language versions of a text; 0 is best, 4 the maximum. "
        "Uniformity: log mean exp(−2 distance²) over distinct pairs; lower is more even. The lower left "
        "corner of the plane is best.",
        f"Telling languages apart: cross-validated accuracy of predicting the language from the vector"
        f"{folds}. At chance level, vectors do not reveal their language.",
        *(f"On {what}: {why}." for what, why in geometry.skipped.items()),
    ]
    rows = [[words(label), *_geometry_cells(encoder)] for label, encoder in geometry.encoders.items()]
    return Table.of("Geometry of the encoders", columns, rows, notes, name="geometry", labels=labels)


_PROBES = ("nearest centroid", "k nearest", "chance")


def _geometry_cells(encoder: EncoderResult) -> list[Cell]:
    probe = encoder.separability
    accuracies = (probe.centroid, probe.knn, probe.chance) if probe else (None, None, None)
    return [count(encoder.dimension), *map(number, (encoder.alignment, encoder.uniformity, *accuracies))]


def geometry_details(geometry: GeometryResult, labels: Sequence[str] = ()) -> Iterator[Table]:
    """Uniformity by language and alignment by pair of languages, of all encoders."""
    names = list(geometry.encoders)
    uniform = [encoder.uniformity_per_language for encoder in geometry.encoders.values()]
    languages = sorted({language for values in uniform for language in values})
    if languages:
        rows = [
            [words(language), *(number(values.get(language)) for values in uniform)] for language in languages
        ]
        title = "Uniformity by language"
        headers = [Column("language"), *(Column(name, better=DOWN) for name in names)]
        yield Table.of(title, headers, rows, name="uniformity-by-language", labels=labels)
    pairs = [{(a, b): value for a, b, value in one.pair_alignment} for one in geometry.encoders.values()]
    both = sorted({pair for values in pairs for pair in values})
    if both:
        rows = [[words(f"{a} – {b}"), *(number(values.get((a, b))) for values in pairs)] for a, b in both]
        title = "Alignment by pair of languages"
        headers = [Column("languages"), *(Column(name, better=DOWN) for name in names)]
        yield Table.of(title, headers, rows, name="alignment-by-pair", labels=labels)


def encoder_tables(geometry: GeometryResult, labels: Sequence[str] = ()) -> Iterator[Table]:
    """Distances between languages, then checkpoints, of each encoder."""
    for label, encoder in geometry.encoders.items():
        languages = encoder.centroid_distances.languages
        distances = zip(languages, encoder.centroid_distances.distances, strict=True)
        yield Table.of(
            f"{label}: distances between the centroids of languages",
            ["language", *(Column(language, better=DOWN) for language in languages)],
            [[words(language), *map(number, row)] for language, row in distances],
            name=f"centroids {label}",
            labels=labels,
        )
    for label, encoder in geometry.encoders.items():
        if encoder.trail:
            yield Table.of(
                f"{label}: checkpoints of the training run",
                ["step", "alignment", "uniformity"],
                [[count(one.step), number(one.alignment), number(one.uniformity)] for one in encoder.trail],
                name=f"checkpoints {label}",
                labels=labels,
            )


def systems_table(results: BenchmarkResults) -> Table:
    """A row per system."""
    names = system_names(results)
    columns = [
        Column("system"),
        *(Column(name, text=True) for name in ("kind", "made of", "fingerprint")),
        Column("documents"),
        *(Column(name, better=DOWN) for name in ("index size", "time")),
    ]
    rows = []
    for name, system in results.systems.items():
        parts = " + ".join(names.get(part, part) for part in system.parts)
        size, total = system.index_bytes, sum(system.seconds.values())
        rows.append(
            [
                words(names[name], name),
                words(system.kind),
                words(system.encoder or parts or MISSING),
                Cell((system.fingerprint or MISSING)[:12], system.fingerprint),
                count(system.documents),
                Cell(MISSING) if size is None else Cell(size_text(size), size),
                Cell(duration(total), total) if system.seconds else Cell(MISSING),
            ]
        )
    notes = []
    for name, system in results.systems.items():
        details = {what: value for what, value in system.details.items() if value not in (None, "", {}, [])}
        if details:
            said = ", ".join(f"{what} {_said(value)}" for what, value in details.items())
            notes.append(f"{names[name]}: {said}.")
    return Table.of("Systems", columns, rows, notes, name="systems", labels=labels(results))


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key} {_said(part)}' for key, part in value.items())})"
    if isinstance(value, list):
        return f"({', '.join(map(_said, value))})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def commands(results: BenchmarkResults) -> dict[str, str]:
    """System -> a command that makes its run alone and scores it, in a directory of its own.

    It is the command of the whole reproduction, with that system's `--encoder`, `--run` and `--bm25` only.
    """
    try:
        tokens = shlex.split(results.provenance.command)
    except ValueError:
        tokens = []
    name = results.config.name
    if tokens[:2] != ["mimo", "reproduce"]:
        tokens = ["mimo", "reproduce", name]
    kept: list[str] = []
    taken: dict[str, list[str]] = {option: [] for option in ("--encoder", "--run", "--output", "--suite")}
    option = ""
    for token in tokens:
        if token.startswith("-"):
            option, equals, value = token.partition("=")
            taken.setdefault(option, []).extend([value] * bool(equals))
        elif option in _OF_A_SYSTEM:
            taken[option].append(token)
        if option not in _OF_A_SYSTEM:
            kept.append(token)
    if taken["--suite"]:
        kept.insert(2, name)
    specs: dict[str, str] = {}
    for kind, option in (("dense", "--encoder"), ("run", "--run")):
        named = [label for label, system in results.systems.items() if system.kind == kind]
        if len(named) == len(taken[option]):
            specs |= zip(named, taken[option], strict=True)
    output = (taken["--output"] or [f"indexes/{name}"])[-1]
    made = {}
    for label, system in results.systems.items():
        parts = {part: results.systems[part] for part in system.parts or (label,) if part in results.systems}
        own = ["--bm25" if any(one.kind == "bm25" for one in parts.values()) else "--no-bm25"]
        for kind, option in (("dense", "--encoder"), ("run", "--run")):
            values = [
                specs.get(part, f"{part}={one.encoder or 'FILE'}")
                for part, one in parts.items()
                if one.kind == kind
            ]
            own += [option, *values] if values else []
        made[label] = shlex.join([*kept, *own, "--output", f"{output}-{label}"])
    return made


# Options of `mimo reproduce` that differ between the commands of its systems.
_OF_A_SYSTEM = ("--encoder", "--run", "--bm25", "--no-bm25", "--baseline", "--output", "--suite")


def times_table(results: BenchmarkResults) -> Table | None:
    """Seconds of each step; None if no step was timed."""
    names = system_names(results)
    steps = list(dict.fromkeys(step for system in results.systems.values() for step in system.seconds))
    if not steps:
        return None
    rows = [
        [words(names[name], name), *(number(system.seconds.get(step), ",.1f") for step in steps)]
        for name, system in results.systems.items()
    ]
    return Table.of("Seconds of each step", ["system", *steps], rows, name="times", labels=labels(results))


def provenance(results: BenchmarkResults) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Headings, each with a list of names and values."""
    made, names = results.provenance, system_names(results)
    hardware = made.hardware
    try:
        date = datetime.fromisoformat(made.date).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        date = made.date
    memory = None if hardware.memory_bytes is None else size_text(hardware.memory_bytes)
    run: list[tuple[str, str | None]] = [("Date", date), ("Commit", made.git_commit)]
    machine: list[tuple[str, str | None]] = [
        ("Machine", hardware.machine),
        ("Processor", hardware.processor),
        ("Cores", None if hardware.cores is None else str(hardware.cores)),
        ("Memory", memory),
        ("Device", hardware.device),
    ]
    for title, entries in (("Run", run), ("Hardware", machine)):
        yield title, [(name, value) for name, value in entries if value]
    yield "Versions", [(name, version or MISSING) for name, version in made.versions.items()]
    prints = [(name, value or MISSING) for name, value in made.fingerprints.items()]
    prints += [(names[name], one.fingerprint) for name, one in results.systems.items() if one.fingerprint]
    yield "Fingerprints", prints


def duration(seconds: float) -> str:
    """5400 -> "1 h 30 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"
