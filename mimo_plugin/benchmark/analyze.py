"""What `mimo analyze` does: encode, measure, draw, print."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mimo_plugin.benchmark.geometry import Analysis, Geometry
from mimo_plugin.benchmark.texts import (
    NamedEncoder,
    Role,
    file_name,
    parse_encoder,
    same_labels,
    sample_texts,
)
from mimo_plugin.collections.records import ERROR
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Findings, Problems, UsageError
from mimo_plugin.core.files import check_place, make_parent, write_text
from mimo_plugin.evaluation.fairness import Peer, RankCorrelation
from mimo_plugin.evaluation.language import LanguageBias
from mimo_plugin.evaluation.options import TableFormat
from mimo_plugin.evaluation.runs import RunFile, file_problem, run_files, same_names
from mimo_plugin.evaluation.tables import MISSING, Table, render
from mimo_plugin.evaluation.trained_on import TrainedOn, open_seen, trained_on

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import EncoderOptions
    from mimo_plugin.evaluation.language import LanguageBias


@dataclass(frozen=True)
class AnalyzeOptions:
    """Attributes:
    role: documents or queries.
    texts: see `sample_texts`.
    seed: of all that is drawn.
    hits_cutoff: how many hits of a query are looked at, in runs.
    fairness: further cutoffs of PEER and MRC, see `parse_cutoffs`.
    pooled: ids are `lang:id` also for a single collection.
    duplicates: see `survey` and `load_pool`.
    progress: bars; None shows them on a terminal only.
    """

    role: Role = Role.DOCUMENTS
    texts: int = 1000
    seed: int = 42
    hits_cutoff: int = 20
    fairness: Sequence[str] = ()
    pooled: bool = False
    duplicates: str = ERROR
    progress: bool | None = None


@dataclass(frozen=True)
class Analyzed:
    """analysis: None without encoders. language_bias: run -> what was found. warnings: a line each.
    trained_on: encoder -> how many of the texts it was trained on, where that is known."""

    analysis: Analysis | None
    language_bias: "Mapping[str, LanguageBias]"
    warnings: tuple[str, ...]
    trained_on: Mapping[str, TrainedOn] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        from mimo_plugin.benchmark.geometry import as_json
        from mimo_plugin.evaluation.language import as_json as bias_as_json

        seen = {name: found.as_json() for name, found in self.trained_on.items()}
        return {
            "geometry": None if self.analysis is None else as_json(self.analysis),
            "language_bias": {name: bias_as_json(bias) for name, bias in self.language_bias.items()},
            **({"trained_on": seen} if seen else {}),
        }


def analyze(
    collections: Sequence[str],
    encoders: Sequence[str],
    runs: Sequence[str] = (),
    options: AnalyzeOptions | None = None,
    encoder_options: "EncoderOptions | None" = None,
    *,
    json_file: Path | None = None,
    output: Path | None = None,
) -> Analyzed:
    """Looks at encoders on texts of collections, and at the languages of runs of their queries.

    Args:
        encoders: see `parse_encoder`.
        runs: `NAME=FILE` or a file.
        json_file, output: where the caller wants to write, checked before the work.

    Raises:
        MimoError: with every problem that can be found before something is encoded, and as `analyse`.
    """
    options = options or AnalyzeOptions()
    findings = Findings()
    files = run_files(runs)
    findings.attempt(_check_options, options, bool(encoders or runs))
    findings.attempt(_check_outputs, json_file, output, files)
    pool = findings.attempt(_open, collections, bool(encoders), bool(runs), options)
    parsed = [_loadable(findings, spec, encoder_options) for spec in encoders]
    chosen = [encoder for encoder in parsed if encoder is not None]
    findings.add(DataError, same_labels(chosen))
    findings.add(DataError, same_names(files))
    findings.add(DataError, dict.fromkeys(filter(None, (file_problem(file.path) for file in files))))
    pool = findings.complete(pool)

    biases, warnings = _runs(pool, files, options) if files else ({}, [])
    if not chosen:
        return Analyzed(None, biases, tuple(warnings))
    from mimo_plugin.benchmark.geometry import analyse
    from mimo_plugin.collections.survey import copies_text, survey

    if options.role is Role.DOCUMENTS:
        surveyed = survey(pool, duplicates=options.duplicates, progress=options.progress)
        if surveyed.repeated:
            warnings.append(copies_text(surveyed.copies))
            pool = _with_docs(pool, surveyed.distinct(pool))
    texts = sample_texts(
        pool,
        collections,
        role=options.role,
        count=options.texts,
        seed=options.seed,
        progress=options.progress,
    )
    analysis = analyse(chosen, texts, encoder_options, progress=options.progress)
    seen, told = open_seen({encoder.label: encoder.checkpoint for encoder in chosen})
    found = trained_on(texts.texts, seen)
    for name, one in found.items():
        told += one.warnings(name, f"{options.role.value} looked at")
    return Analyzed(analysis, biases, (*warnings, *told), found)


def _check_options(options: AnalyzeOptions, anything: bool) -> None:
    from mimo_plugin.evaluation.language import parse_cutoffs

    problems = Problems(UsageError)
    if not anything:
        problems.add("nothing to look at: name a checkpoint with --encoder, or a run with --run")
    if options.texts < 1:
        problems.add(f"{options.texts} texts, expected 1 or more: a thousand give stable numbers")
    if options.hits_cutoff < 1:
        problems.add(f"--hits-cutoff {options.hits_cutoff}, expected 1 or more")
    try:
        parse_cutoffs(options.fairness)
    except UsageError as error:
        problems.extend(str(error).splitlines())
    problems.raise_any()


def _check_outputs(json_file: Path | None, output: Path | None, files: Sequence[RunFile]) -> None:
    from mimo_plugin.evaluation.evaluate import check_outputs

    problems = Problems(UsageError)
    if json_file is not None:
        try:
            check_outputs([json_file], files)
        except UsageError as error:
            problems.extend(str(error).splitlines())
    if output is not None:
        if output.exists() and not output.is_dir():
            problems.add(f"{output}: is a file, expected the name of a directory for pictures and tables")
        else:
            try:
                check_place(output / "tables")
            except UsageError as error:
                problems.add(str(error))
    problems.raise_any()


def _open(collections: Sequence[str], encoded: bool, searched: bool, options: AnalyzeOptions) -> Any:
    from mimo_plugin.collections.loading import require
    from mimo_plugin.collections.pool import load_pool

    require(
        collections,
        docs=searched or (encoded and options.role is Role.DOCUMENTS),
        queries=searched or (encoded and options.role is Role.QUERIES),
        qrels=searched,
    )
    return load_pool(collections, pooled=options.pooled or None, duplicates=options.duplicates)


def _with_docs(pool: Any, docs: Any) -> Any:
    from ir_datasets import Dataset

    queries, qrels = (
        getattr(pool, f"{part}_handler")() if pool.has(part) else None for part in ("queries", "qrels")
    )
    return Dataset(docs, queries, qrels)


def _loadable(findings: Findings, spec: str, options: "EncoderOptions | None") -> NamedEncoder | None:
    """The encoder, if it can be loaded; it is let go again, so that there is never more than one."""
    from mimo_plugin.encoder.encoder import Encoder

    encoder = findings.attempt(parse_encoder, spec)
    if encoder is not None:
        findings.attempt(Encoder, encoder.checkpoint, options)
    return encoder


def _runs(
    pool: Any, files: Sequence[RunFile], options: AnalyzeOptions
) -> "tuple[dict[str, LanguageBias], list[str]]":
    """The language bias of each run, and warnings.

    Raises:
        DataError: with the problems of all runs.
    """
    from mimo_plugin.evaluation.language import language_bias, parse_cutoffs
    from mimo_plugin.evaluation.runs import read_run
    from mimo_plugin.evaluation.topics import check_docids, check_queries, documents_of, load_topics

    cutoff = options.hits_cutoff
    further = parse_cutoffs(options.fairness)
    deepest = further.deepest(cutoff)
    findings = Findings()
    read = [findings.attempt(read_run, file.path, file.name) for file in files]
    topics = findings.attempt(load_topics, pool)
    runs = [run for run in read if run is not None]
    if topics is not None:
        for run in runs:
            findings.add(DataError, check_queries(run, topics))
    topics = findings.complete(topics)

    warnings = []
    for run in runs:
        warnings += check_docids(run, topics)
        depth = max(len(ranking.docids) for ranking in run.queries.values())
        if depth < deepest:
            warnings.append(
                f"run {run.name!r} has {depth} hits a query at most, fewer than the {deepest} that are "
                f"looked at: search deeper, or read them as the first {depth}"
            )
    wanted = set().union(*(documents_of(run, topics, deepest) for run in runs))
    doc_langs: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for doc in bar(pool.docs_iter(), what="reading", unit="documents", enabled=options.progress):
        if doc.lang:
            counts[doc.lang] += 1
            if doc.doc_id in wanted:
                doc_langs[doc.doc_id] = doc.lang
    biases = {
        run.name: findings.attempt(
            language_bias, run, topics, doc_langs, k=cutoff, collection=counts, further=further
        )
        for run in runs
    }
    findings.raise_any()
    return {name: bias for name, bias in biases.items() if bias is not None}, warnings


# A matrix of more languages fits no page; `--json` has it.
_MOST_COLUMNS = 24


def make_tables(analysis: Analysis) -> list[Table]:
    """All encoders, then by language, then each encoder's matrices and trail."""
    tables = [_summary(analysis), _by_language(analysis)]
    for label, geometry in analysis.encoders.items():
        if geometry.pair_alignment:
            tables.append(_pairs(label, geometry.pair_alignment))
        centroids = geometry.centroids
        if len(centroids.languages) > 1:
            title = f"{label}: distance between the mean vectors of languages"
            tables.append(matrix(title, centroids.languages, centroids.languages, centroids.distances))
        if geometry.trail:
            why = analysis.skipped.get(f"{label}: trail")
            tables.append(_trail(label, geometry, why))
    return [table for table in tables if len(table.headers) <= _MOST_COLUMNS + 1]


def matrix(title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray) -> Table:
    """values: (rows, columns); NaN is missing."""
    cells = [
        [name, *(MISSING if np.isnan(value) else f"{value:.2f}" for value in line)]
        for name, line in zip(rows, values, strict=True)
    ]
    return Table(title, ["", *columns], cells)


def _summary(analysis: Analysis) -> Table:
    texts = analysis.texts
    title = (
        f"geometry on {texts.group_count:,} texts, {len(texts.texts):,} {texts.role} in {len(texts.counts)} "
        "languages"
    )
    headers = ["encoder", "dimensions", "alignment", "uniformity", "centroid probe", "kNN probe", "chance"]
    rows = []
    for label, geometry in analysis.encoders.items():
        probe = geometry.separability
        told = (None, None, None) if probe is None else (probe.centroid, probe.knn, probe.chance)
        values = (geometry.alignment, geometry.uniformity, *told)
        rows.append([label, str(geometry.dimension), *map(_cell, values)])
    notes = [
        "alignment: mean squared distance of translations, 0 to 4; uniformity: log mean exp(-2 distance^2), "
        "-8 to 0; both: lower is better."
    ]
    probes = [one.separability for one in analysis.encoders.values() if one.separability]
    if probes:
        notes.append(
            f"probes: share of texts whose language is told from the vector, by the nearest mean vector and "
            f"by {probes[0].neighbours} nearest neighbours; {probes[0].folds} folds, versions of a text in "
            "one fold; at chance the languages are mixed."
        )
    notes += [f"{what}: {why}." for what, why in analysis.skipped.items()]
    return Table(title, headers, rows, notes=tuple(notes))


def _by_language(analysis: Analysis) -> Table:
    """Alignment of a language: the mean over its pairs."""
    several = len(analysis.encoders) > 1
    parallel = any(one.pair_alignment for one in analysis.encoders.values())
    headers = ["language", "texts"]
    columns = []
    for label, geometry in analysis.encoders.items():
        if parallel:
            headers.append(f"alignment, {label}" if several else "alignment")
            columns.append(_per_language(geometry.pair_alignment))
        headers.append(f"uniformity, {label}" if several else "uniformity")
        columns.append(geometry.uniformity_per_language)
    rows = [
        [language, f"{count:,}", *(_cell(column.get(language)) for column in columns)]
        for language, count in analysis.texts.counts.items()
    ]
    notes = ("alignment of a language: the mean over its pairs with the others.",) if parallel else ()
    return Table("by language", headers, rows, notes=notes)


def _per_language(pairs: Mapping[tuple[str, str], float]) -> Mapping[str, float | None]:
    values: dict[str, list[float]] = {}
    for pair, value in pairs.items():
        for language in pair:
            values.setdefault(language, []).append(value)
    return {language: fsum(own) / len(own) for language, own in values.items()}


def _pairs(label: str, pairs: Mapping[tuple[str, str], float]) -> Table:
    names = sorted({language for pair in pairs for language in pair})
    values = np.full((len(names), len(names)), np.nan)
    for (first, second), value in pairs.items():
        row, column = names.index(first), names.index(second)
        values[row, column] = values[column, row] = value
    return matrix(f"{label}: alignment of pairs of languages", names, names, values)


def _trail(label: str, geometry: Geometry, why: str | None) -> Table:
    rows = [[f"{point.step:,}", _cell(point.alignment), _cell(point.uniformity)] for point in geometry.trail]
    return Table(
        f"{label}: while it trained",
        ["step", "alignment", "uniformity"],
        rows,
        0,
        (f"{why}.",) if why else (),
    )


def _cell(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


_SUFFIXES = {TableFormat.TEXT: "txt", TableFormat.MARKDOWN: "md", TableFormat.LATEX: "tex"}


def tables_text(analyzed: Analyzed, form: TableFormat) -> str:
    tables = [] if analyzed.analysis is None else make_tables(analyzed.analysis)
    if analyzed.language_bias:
        tables += make_run_tables(analyzed.language_bias)
    return render(tables, form)


def write_json(analyzed: Analyzed, path: Path) -> None:
    make_parent(path)
    text = json.dumps(analyzed.as_json(), ensure_ascii=False, allow_nan=False, indent=2)
    write_text(path, text + "\n")


def write_directory(analyzed: Analyzed, directory: Path, form: TableFormat) -> list[Path]:
    """Writes the tables, and each picture as PNG and SVG; returns the files."""
    from mimo_plugin.report.maps import draw_all, save_figure

    tables = directory / f"tables.{_SUFFIXES[form]}"
    make_parent(tables)
    write_text(tables, tables_text(analyzed, form))
    files = [tables]
    geometry = analyzed.as_json()["geometry"]
    for (what, label), figure in draw_all(geometry).items() if geometry else ():
        name = what if label is None else f"{what}-{file_name(label)}"
        files += save_figure(figure, directory / name)
    return files


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
        rows.append([name, *(_run_cell(value) for value in values)])
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
            [
                name,
                _run_cell(one.mean),
                *(_run_cell(one.per_language.get(language)) for language in languages),
            ]
            for name, one in found.items()
        ]
        yield Table(f"{title} by query language", ["run", "mean", *languages], rows)


def _run_cell(value: float | None) -> str:
    # PEER is not a number where no topic can be compared.
    return MISSING if value is None or value != value else f"{value:.4f}"
